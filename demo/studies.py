"""The studies of the demo: a training study, a histogram, and a study that must be refused."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.federation import Federation
from demo.node_crash import NodeCrash

TRAINING = (
    "In each round a country sends one short list of whole numbers: a sum over its patients, with "
    "each patient's part bounded, with the country's own noise, under a mask that cancels only in "
    "the sum over all countries. Nothing leaves a country before its officer has permitted the "
    "study and its ledger is charged."
)
KILLED_AFTER = 4
"""The round of the training run after which a node is killed."""
HISTOGRAM = (
    "The second study asks for a table. It needs the same four permits, and its cost to each "
    "patient is added to the cost of the first study."
)


@dataclass(frozen=True)
class Outcome:
    """A released result as `result show --json` prints it, and the duration of its run."""

    result: dict[str, Any]
    seconds: float


def train(federation: Federation, documents: Path) -> Outcome:
    """Train a model under four permits and release it."""
    federation.story.section("A training study: proposed, read, permitted, run, released")
    federation.story.say(TRAINING)
    crash = NodeCrash(federation, federation.world.countries[-1], KILLED_AFTER)
    training = federation.world.training
    return _study(federation, documents, training, in_full=True, crash=crash)


def count(federation: Federation, documents: Path) -> Outcome:
    """Open a histogram under four permits."""
    federation.story.section("A histogram: the same permits, the same ledger")
    federation.story.say(HISTOGRAM)
    return _study(federation, documents, federation.world.histogram, in_full=False)


def _study(
    federation: Federation,
    documents: Path,
    text: str,
    *,
    in_full: bool,
    crash: NodeCrash | None = None,
) -> Outcome:
    story, coordinator = federation.story, federation.coordinator
    name = text.removeprefix("hospital-")
    draft = documents / f"{name}.yaml"
    story.command("coordinator", f"pratique-coordinator study check {draft.name}")
    checked = coordinator.run("study", "check", draft)
    story.quote(checked, most=20 if in_full else 8)
    story.command("coordinator", f"pratique-coordinator study propose {draft.name}")
    coordinator.run("study", "propose", draft)
    _permit(federation, name, in_full=in_full)
    return _run(federation, name, crash)


def _permit(federation: Federation, name: str, *, in_full: bool) -> None:
    story, first = federation.story, federation.first
    if in_full:
        story.command(f"officer {first}", f"pratique-officer show {name}")
        story.quote(federation.officers[first].run("show", name, unlock=True), most=60)
    story.command("each officer", f"pratique-officer approve {name}")
    arguments = ("approve", name, "--yes", "--sentence", "Approved after reading it in full.")
    federation.everywhere(
        lambda site: federation.officers[site.country].run(*arguments, unlock=True)
    )


def _run(federation: Federation, name: str, crash: NodeCrash | None) -> Outcome:
    story, coordinator = federation.story, federation.coordinator
    story.command("coordinator", f"pratique-coordinator study launch {name}")
    began = story.seconds
    coordinator.run("study", "launch", name)
    story.command("coordinator", f"pratique-coordinator study watch {name}")
    with coordinator.lines("study", "watch", name) as lines:
        for line in lines:
            story.quote(line)
            if crash:
                crash.read_line(line)
    seconds = story.seconds - began
    if crash:
        crash.explain()
    story.command("coordinator", f"pratique-coordinator result verify {name}")
    story.quote(coordinator.run("result", "verify", name))
    story.command("coordinator", f"pratique-coordinator result show {name}")
    story.quote(coordinator.run("result", "show", name), most=40)
    return Outcome(coordinator.ask("result", "show", name), seconds)


def refuse(federation: Federation, documents: Path) -> None:
    """Propose a study with a forbidden purpose, which every country's rules refuse."""
    story, coordinator = federation.story, federation.coordinator
    story.section("A study that nobody can launch: its purpose is forbidden")
    story.say(
        "An insurer wants to set prices by expected illness. The coordinator tries to propose it:"
    )
    draft = documents / "insurance-premiums.yaml"
    for action in ("check", "propose"):
        story.command("coordinator", f"pratique-coordinator study {action} {draft.name}")
        story.quote(coordinator.refused("study", action, draft), most=14)
    story.say("If the coordinator launched it nevertheless, every node would refuse by itself.")
