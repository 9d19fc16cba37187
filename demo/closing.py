"""The last acts: the logs are verified, and what it all came to."""

from typing import Any

import numpy as np

from demo.federation import Federation
from demo.reference import (
    Quality,
    newcomers,
    pooled_model,
    predict,
    quality,
    read_predictions,
    write_study_csv,
)
from demo.studies import Outcome
from demo.world import Site


def verify_logs(federation: Federation) -> None:
    """Every officer checks its own node's log and the coordinator's, by its own program."""
    story, coordinator = federation.story, federation.coordinator
    story.act("Every log is verified, by people who do not trust who wrote it")
    story.say(
        "Each decision and each release stands in a log that can only grow. Every officer's own "
        "program checks every entry against the head that the log's key has signed."
    )
    story.command("each officer", "pratique-officer log verify --node …")
    own = federation.everywhere(lambda site: _verify_node(federation, site))
    story.quote("\n".join(text.strip() for text in own.values()))
    story.command("each officer", "pratique-officer log verify --coordinator …")
    theirs = federation.everywhere(lambda site: _verify_coordinator(federation, site))
    story.quote(theirs[federation.first])
    story.command("coordinator", "pratique-coordinator log verify")
    story.quote(coordinator.run("log", "verify"))


def _verify_node(federation: Federation, site: Site) -> str:
    officer, node = federation.officers[site.country], federation.nodes[site.country]
    return officer.run("log", "verify", "--node", node.home)


def _verify_coordinator(federation: Federation, site: Site) -> str:
    officer = federation.officers[site.country]
    return officer.run("log", "verify", "--coordinator", federation.coordinator.home)


def compare(federation: Federation, training: Outcome, histogram: Outcome) -> None:
    """Show the released model beside pooling, what it cost, and what each ledger has left."""
    story = federation.story
    story.act("What it came to")
    people = newcomers(federation.world)
    truth = people[federation.world.task.target]
    story.say(
        f"Both models are scored on {len(truth):,} people whom no node and no training saw. "
        "Pooling means all records in one place, without any privacy: what the countries would "
        "never do, and what only a demo can work out."
    )
    pooled = predict(federation.world, pooled_model(federation.world), people)
    rows = [
        ("pooled records, no privacy", *_figures(quality(pooled, truth))),
        ("released model", *_figures(quality(_released(federation, people), truth))),
        ("always the commoner answer", "0.500", f"{max(truth.mean(), 1 - truth.mean()):.3f}"),
    ]
    story.table(("on people nobody trained on", "AUC", "accuracy"), rows)
    story.say(_private_evaluation(training.result))
    _costs(federation, {"training": training, "histogram": histogram})
    _ledgers(federation)


def _figures(found: Quality) -> tuple[str, str]:
    return f"{found.auc:.3f}", f"{found.accuracy:.3f}"


def _released(federation: Federation, people: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Score the newcomers with the released model, by the real command."""
    world, study = federation.world, federation.world.training.removeprefix("hospital-")
    source, scored = federation.letters / "newcomers.csv", federation.letters / "scored.csv"
    write_study_csv(source, world.task.input_features(world.features), people)
    federation.story.command(
        "coordinator", f"pratique-coordinator result predict {study} {source.name}"
    )
    federation.coordinator.run("result", "predict", study, source, "--out", scored)
    return read_predictions(scored, world.task.target)


def _private_evaluation(result: dict[str, Any]) -> str:
    found = result["evaluation"]["everybody"]
    shown = [_interval(name, found[name]) for name in ("auc", "accuracy") if found[name]]
    said = ", ".join(shown) or "suppressed, for too few patients"
    return f"By its own evaluation on held-out patients, a noisy sum like all others: {said}."


def _interval(name: str, one: dict[str, float]) -> str:
    return f"{name} {one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"


def _costs(federation: Federation, outcomes: dict[str, Outcome]) -> None:
    heads = ("study", "n", "h", "c", "ε", "δ", "rounds void", "seconds")
    federation.story.say("")
    federation.story.table(heads, [_cost(name, one) for name, one in outcomes.items()])


def _cost(name: str, outcome: Outcome) -> tuple[str, ...]:
    found = outcome.result
    counts = (str(found[key]) for key in ("roster_size", "honest", "colluding"))
    privacy = (f"{found['epsilon']:.3g}", f"{found['delta']:.0e}", str(found["rounds_void"]))
    return name, *counts, *privacy, f"{outcome.seconds:.1f}"


def _ledgers(federation: Federation) -> None:
    found = federation.everywhere(lambda site: federation.nodes[site.country].ask("status"))
    rows = [_ledger(country, status) for country, status in found.items()]
    federation.story.say("")
    federation.story.table(("ledger of", "register", "spent this year", "left"), rows)


def _ledger(country: str, status: dict[str, Any]) -> tuple[str, ...]:
    ledger = status["ledger"]
    spent = ledger["spent_micro"] / ledger["cap_micro"]
    return country, str(ledger["register"]), f"{spent:.1%}", f"{1 - spent:.1%}"
