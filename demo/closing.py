"""The end of the demo: verify the logs, compare the models, show the costs."""

from typing import Any

from demo.federation import Federation
from demo.reference import (
    Quality,
    exact_figures,
    newcomers,
    pooled_model,
    predict,
    quality,
    read_predictions,
    records,
    write_study_csv,
)
from demo.studies import Outcome
from demo.world import Site
from governance.runtime.wording import exact, interval_text, percent, rounded_up
from protocols.tasks.bin_edges import with_edges
from protocols.tasks.evaluation import Evaluation
from protocols.tasks.features import Columns, FloatArray


def verify_logs(federation: Federation) -> None:
    """Have every officer verify the log of its node and the coordinator's log."""
    story, coordinator = federation.story, federation.coordinator
    story.section("Every log is verified, by people who do not trust its writer")
    story.say(
        "Each decision and each release is in a log to which entries can only be appended. Every "
        "officer's program verifies every entry against the signed head of the log."
    )
    story.command("each officer", "pratique-officer log verify --node …")
    nodes = federation.everywhere(lambda site: _verify_node(federation, site))
    story.quote("\n".join(output.strip() for output in nodes.values()))
    story.command("each officer", "pratique-officer log verify --coordinator …")
    outputs = federation.everywhere(lambda site: _verify_coordinator(federation, site))
    story.quote(outputs[federation.first])
    story.command("coordinator", "pratique-coordinator log verify")
    story.quote(coordinator.run("log", "verify"))


def _verify_node(federation: Federation, site: Site) -> str:
    officer, node = federation.officers[site.country], federation.nodes[site.country]
    return officer.run("log", "verify", "--node", node.home)


def _verify_coordinator(federation: Federation, site: Site) -> str:
    officer = federation.officers[site.country]
    return officer.run("log", "verify", "--coordinator", federation.coordinator.home)


def compare(federation: Federation, training: Outcome, histogram: Outcome) -> None:
    """Compare the released model with pooling; show its cost, and what is left in each ledger."""
    story = federation.story
    story.section("The results")
    people = newcomers(federation.world)
    truth = people[federation.world.task.target]
    story.say(
        f"Both models are scored on {len(truth):,} people who were in no node's records. Pooling "
        "means all records in one place, without any privacy: the countries would never do it, "
        "and only a demo can compute it."
    )
    pooled = predict(federation.world, pooled_model(federation.world), people)
    rows = [
        ("pooled records, no privacy", *_figures(quality(pooled, truth))),
        (
            "released model",
            *_figures(quality(_predictions(federation, people, "newcomers"), truth)),
        ),
        ("always the more frequent answer", "0.500", f"{max(truth.mean(), 1 - truth.mean()):.3f}"),
    ]
    story.table(("on people outside the training", "AUC", "accuracy"), rows)
    _beside_exact_figures(federation, training.result)
    _costs(federation, {"training": training, "histogram": histogram})
    _ledgers(federation)


def _figures(measured: Quality) -> tuple[str, str]:
    return f"{measured.auc:.3f}", f"{measured.accuracy:.3f}"


def _predictions(federation: Federation, people: Columns, name: str) -> FloatArray:
    """Score people with the released model, with the real command."""
    world, study = federation.world, federation.world.training.removeprefix("hospital-")
    source, scored = federation.letters / f"{name}.csv", federation.letters / f"scored-{name}.csv"
    write_study_csv(source, world.task.input_features(world.features), people)
    federation.story.command(
        "coordinator", f"pratique-coordinator result predict {study} {source.name}"
    )
    federation.coordinator.run("result", "predict", study, source, "--out", scored)
    return read_predictions(scored, world.task.target)


def _beside_exact_figures(federation: Federation, result: dict[str, Any]) -> None:
    """Print the private evaluation, and the exact figures that only a demo can compute."""
    story, world = federation.story, federation.world
    story.say(
        "The study's private evaluation is one more noisy sum, over patients who were held out of "
        "the training. Which patients these are depends on a secret of each node, so the exact "
        "figures beside it are those of the released model on all records that the nodes had."
    )
    people = records(world)
    scores = _predictions(federation, people, "records")
    task = with_edges(world.task, world.features)
    edges = (task.evaluation or Evaluation()).boundaries()
    known = exact_figures(scores, people[task.target], edges)
    figures = result["evaluation"]["everybody"]
    rows = [_beside(name, figures[name], known[name]) for name in known]
    story.table(("private evaluation", "value, 95 % interval", "exact", "in the interval"), rows)


def _beside(
    name: str, estimate: dict[str, float] | str | None, known: float
) -> tuple[str, str, str, str]:
    words, shown = name.replace("_", " "), f"{known:.3f}"
    if isinstance(estimate, dict):
        inside = estimate["low"] <= known <= estimate["high"]
        return words, interval_text(estimate), shown, "yes" if inside else "no"
    return words, estimate or "suppressed: too few patients", shown, ""


def _costs(federation: Federation, outcomes: dict[str, Outcome]) -> None:
    heads = ("study", "n", "h", "c", "ε", "δ", "rounds void", "seconds")
    federation.story.say("")
    federation.story.table(heads, [_cost(name, outcome) for name, outcome in outcomes.items()])


def _cost(name: str, outcome: Outcome) -> tuple[str, ...]:
    result = outcome.result
    counts = (str(result[key]) for key in ("roster_size", "honest", "colluding"))
    privacy = (rounded_up(result["epsilon"]), exact(result["delta"]), str(result["rounds_void"]))
    return name, *counts, *privacy, f"{outcome.seconds:.1f}"


def _ledgers(federation: Federation) -> None:
    statuses = federation.everywhere(lambda site: federation.nodes[site.country].ask("status"))
    rows = [_ledger(country, status) for country, status in statuses.items()]
    federation.story.say("")
    federation.story.table(("ledger of", "register", "spent this year", "left"), rows)


def _ledger(country: str, status: dict[str, Any]) -> tuple[str, ...]:
    ledger = status["ledger"]
    spent = ledger["spent_micro"] / ledger["cap_micro"]
    return country, str(ledger["register"]), percent(spent), percent(1 - spent)
