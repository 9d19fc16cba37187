"""Compare the time of a private round with a message of stock Flower: `make bench-rounds`.

Ours: the real commands and daemons on loopback, a coordinator and four node processes, mutual TLS,
Flower's SuperLink behind the relay; gate, ledger, log, noise and masks on. Stock: a SuperLink and
four `flower-supernode` of the same version, and messages with the same number of float64 values.
"""

import argparse
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from bench.cpu import CpuMeter
from bench.plain_flower import plain_messages
from bench.wide import COUNTRIES, DIMENSION, PATIENTS_EACH, SAMPLING_RATE, STUDY, wide_study
from bench.wide import wide_world as world_of
from client.home import NodeHome
from demo.federation import Federation
from demo.opening import admit_officers, sign_agreement, start_coordinator, start_nodes
from demo.party import Processes
from demo.story import Story
from governance.audit.events import EventKind
from governance.runtime.local_rpc import ask

RESULTS = Path(__file__).with_name("results") / "rounds.json"
ROUNDS = 30
MIN_ROUNDS = 20
MESSAGES = 8
LONGEST_ROUND, GOAL_ROUND, MIN_RATIO = 0.8, 0.5, 15.0
"""Seconds, seconds, and how many times faster than four stock messages."""
KINDS = {
    "pratique-node\0up": "nodes, all four",
    "pratique-coordinator\0up": "coordinator",
    "flower-superlink": "SuperLink",
    "flower-superexec": "SuperExec",
    "flwr-serverapp": "server app",
}
STEPS = {
    (EventKind.SUM_CONTRIBUTED, "contribute"): "contributed",
    (EventKind.SUM_ANSWERED, "answer"): "answered",
}


@dataclass(frozen=True)
class Ours:
    """Our run: one node's steps, the coordinator's seconds per round, CPU seconds per round."""

    steps: Sequence["Steps"]
    rounds: Sequence[float]
    cpu: dict[str, float]

    @property
    def periods(self) -> list[float]:
        """Seconds from one round's contribution to the next one's, with the step between them."""
        return [later.contributed - earlier.contributed for earlier, later in pairwise(self.steps)]

    @property
    def parts(self) -> dict[str, list[float]]:
        """Seconds that each part of a round took; they add up to its period."""
        return {
            "contributed to answered": [step.answered - step.contributed for step in self.steps],
            "answered to contributed": [
                later.contributed - earlier.answered for earlier, later in pairwise(self.steps)
            ],
        }


@dataclass(frozen=True)
class Steps:
    """When a node did the steps of a round, by its log, in seconds since the epoch."""

    contributed: float
    answered: float


def measure_ours(folder: Path, rounds: int) -> Ours:
    """Start a federation with the real commands, run the study once, and stop it."""
    for name in ("logs", "tmp"):
        (folder / name).mkdir()
    processes = Processes(folder / "logs")
    meter = CpuMeter(KINDS)
    try:
        federation = started_federation(folder, rounds, processes)
        with meter.running():
            history = _run(federation)
        steps = _steps(federation)
    finally:
        processes.end_all()
    used = meter.between(steps[0].contributed, steps[-1].contributed)
    cpu = {kind: seconds / (len(steps) - 1) for kind, seconds in used.items()}
    return Ours(steps, [float(entry["seconds"]) for entry in history], cpu)


def started_federation(folder: Path, rounds: int, processes: Processes) -> Federation:
    """Start a federation with the real commands, in which a study of `rounds` is permitted."""
    federation = Federation.gather(world_of(folder, rounds), Story(), processes)
    with redirect_stdout(io.StringIO()):
        start_coordinator(federation)
        admit_officers(federation)
        documents = sign_agreement(federation)
        start_nodes(federation)
    text = yaml.safe_dump(wide_study(rounds, datetime.now().astimezone()), sort_keys=False)
    draft = documents / f"{STUDY}.yaml"
    draft.write_text(text, encoding="utf-8")
    federation.coordinator.run("study", "propose", draft)
    arguments = ("approve", STUDY, "--yes", "--sentence", "Approved: the patients are invented.")
    federation.everywhere(
        lambda site: federation.officers[site.country].run(*arguments, unlock=True)
    )
    return federation


def _run(federation: Federation) -> list[dict[str, Any]]:
    coordinator = federation.coordinator
    coordinator.run("study", "launch", STUDY)
    run: dict[str, Any] = {}
    with coordinator.lines("study", "watch", STUDY, "--json") as lines:
        for line in lines:
            run = json.loads(line)
            print(f"\r{run['state']}: round {run['round']} of {run['rounds']} ", end="")
            sys.stdout.flush()
    print()
    history: list[dict[str, Any]] = run["history"]
    if any(entry["outcome"] != "opened" for entry in history):
        raise RuntimeError("a round was void")
    return history


def _steps(federation: Federation) -> list[Steps]:
    """Return the steps of every round from the first country's log."""
    home = NodeHome(federation.nodes[federation.first].home)
    lines = ask(home.socket, "log_entries")["entries"]
    by_round: dict[int, dict[str, float]] = {}
    for line in lines:
        entry = json.loads(line)["entry"]
        step = STEPS.get((entry["kind"], entry.get("phase")))
        if step is not None:
            moment = datetime.fromisoformat(entry["at"]).timestamp()
            by_round.setdefault(entry["round"], {})[step] = moment
    return [Steps(**steps) for _, steps in sorted(by_round.items())]


def as_json(ours: Ours, stock: dict[str, float]) -> dict[str, Any]:
    """Return the figures of both; the ratio uses the faster of the two ways to wait for replies."""
    ours_round, quickest = median(ours.periods), min(stock.values())
    return {
        "ours_round_s": round(ours_round, 4),
        "ours_rounds": len(ours.periods),
        "stock_message_s": round(quickest, 4),
        "ratio_to_four_stock_messages": round(4 * quickest / ours_round, 1),
        "ours_slowest_round_s": round(max(ours.periods), 4),
        "ours_two_messages_s": round(median(ours.rounds), 4),
        "stock_by_way_of_waiting_s": {way: round(took, 4) for way, took in stock.items()},
        "ours_parts_s": {part: round(median(took), 4) for part, took in ours.parts.items()},
        "ours_cpu_s_a_round": {kind: round(used, 4) for kind, used in ours.cpu.items()},
        "dimension": DIMENSION,
        "countries": len(COUNTRIES),
        "patients_a_round": round(PATIENTS_EACH * len(COUNTRIES) * SAMPLING_RATE),
    }


def shortfalls(figures: dict[str, Any]) -> list[str]:
    """Return the bounds that the figures miss, in words; empty if they miss none."""
    rounds, took = figures["ours_rounds"], figures["ours_round_s"]
    ratio = figures["ratio_to_four_stock_messages"]
    bounds = {
        f"{rounds} rounds are too few": rounds < MIN_ROUNDS,
        f"a round takes {took} s, over {LONGEST_ROUND} s": took > LONGEST_ROUND,
        f"{ratio} times faster is less than {MIN_RATIO}": ratio < MIN_RATIO,
    }
    return [sentence for sentence, missed in bounds.items() if missed]


def report(figures: dict[str, Any]) -> None:
    """Print the figures."""
    took, ratio = figures["ours_round_s"], figures["ratio_to_four_stock_messages"]
    goal = "the goal is met" if took <= GOAL_ROUND else "the goal is missed"
    print(f"our private round            {took:8.3f} s, {goal} ({GOAL_ROUND} s)")
    print(f"a message of stock Flower    {figures['stock_message_s']:8.3f} s")
    print(f"four messages / our round    {ratio:8.1f}")
    print("parts of our round, in seconds, from the first node's log:")
    for part, seconds in figures["ours_parts_s"].items():
        print(f"  {part:28} {seconds:8.3f}")
    print("CPU seconds per round of ours:")
    for kind, used in figures["ours_cpu_s_a_round"].items():
        print(f"  {kind:28} {used:8.3f}")


@contextmanager
def _folder(*, keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pratique-bench-"))
    try:
        yield folder
    finally:
        if keep:
            print(f"Kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Run from the command line; return 1 if a bound is missed."""
    parser = argparse.ArgumentParser(
        description="Compare a private round with a message of stock Flower."
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--messages", type=int, default=MESSAGES, help="stock messages for each way of waiting"
    )
    parser.add_argument("--ours-only", action="store_true", help="measure ours, write nothing")
    parser.add_argument("--keep", action="store_true", help="keep all files of the run")
    options = parser.parse_args()
    with _folder(keep=options.keep) as folder:
        (folder / "ours").mkdir()
        ours = measure_ours(folder / "ours", options.rounds)
        if options.ours_only:
            report(as_json(ours, {"not measured": float("nan")}))
            return 0
        (folder / "stock").mkdir()
        stock = plain_messages(folder / "stock", dimension=DIMENSION, messages=options.messages)
    figures = as_json(ours, stock)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    report(figures)
    missed = shortfalls(figures)
    print("\n".join(missed) if missed else "Every bound is met.")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
