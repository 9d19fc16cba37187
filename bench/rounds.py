"""How long a private round takes, beside a plain message of stock Flower: `make bench-rounds`.

Ours: the real commands and daemons on loopback, a coordinator and four node processes, mutual TLS,
Flower's SuperLink behind the relay; gate, ledger, log, noise and masks on. Stock: a SuperLink and
four `flower-supernode` of the same version, one message with as many float64 values to each.
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
FEWEST_ROUNDS = 20
MESSAGES = 8
LONGEST_ROUND, GOAL_ROUND, LEAST_RATIO = 0.8, 0.5, 15.0
"""Seconds, seconds, and how many times faster than four stock messages."""
KINDS = {
    "pratique-node\0up": "nodes, all four",
    "pratique-coordinator\0up": "coordinator",
    "flower-superlink": "SuperLink",
    "flower-superexec": "SuperExec",
    "flwr-serverapp": "server app",
    "server.flower.bundle_guard": "server app",
}
STEPS = {
    (EventKind.SUM_CONTRIBUTED, "contribute"): "contributed",
    (EventKind.SUM_ANSWERED, "answer"): "answered",
}


@dataclass(frozen=True)
class Ours:
    """Our run: one node's steps, how long each round took the coordinator, CPU seconds a round."""

    steps: Sequence["Steps"]
    rounds: Sequence[float]
    cpu: dict[str, float]

    @property
    def periods(self) -> list[float]:
        """Seconds from one round's contribution to the next one's: the step between included."""
        return [later.contributed - earlier.contributed for earlier, later in pairwise(self.steps)]

    @property
    def parts(self) -> dict[str, list[float]]:
        """Seconds that each part of a round took; they add up to its period."""
        return {
            "contributed to answered": [one.answered - one.contributed for one in self.steps],
            "answered to contributed": [
                later.contributed - earlier.answered for earlier, later in pairwise(self.steps)
            ],
        }


@dataclass(frozen=True)
class Steps:
    """When a node's log says that it took the steps of a round, seconds since the epoch."""

    contributed: float
    answered: float


def measure_ours(folder: Path, rounds: int) -> Ours:
    """Raise a federation with the real commands, run the study once, and take it down."""
    for name in ("logs", "tmp"):
        (folder / name).mkdir()
    processes = Processes(folder / "logs")
    meter = CpuMeter(KINDS)
    try:
        federation = raised(folder, rounds, processes)
        with meter.running():
            history = _run(federation)
        steps = _steps(federation)
    finally:
        processes.end_all()
    used = meter.between(steps[0].contributed, steps[-1].contributed)
    cpu = {kind: seconds / (len(steps) - 1) for kind, seconds in used.items()}
    return Ours(steps, [float(one["seconds"]) for one in history], cpu)


def raised(folder: Path, rounds: int, processes: Processes) -> Federation:
    """Raise a federation with the real commands, with a study of so many rounds permitted."""
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
    words = ("approve", STUDY, "--yes", "--sentence", "Approved: the patients are invented.")
    federation.everywhere(lambda site: federation.officers[site.country].run(*words, unlock=True))
    return federation


def _run(federation: Federation) -> list[dict[str, Any]]:
    coordinator = federation.coordinator
    coordinator.run("study", "launch", STUDY)
    found: dict[str, Any] = {}
    with coordinator.lines("study", "watch", STUDY, "--json") as lines:
        for line in lines:
            found = json.loads(line)
            print(f"\r{found['state']}: round {found['round']} of {found['rounds']} ", end="")
            sys.stdout.flush()
    print()
    history: list[dict[str, Any]] = found["history"]
    if any(one["outcome"] != "opened" for one in history):
        raise RuntimeError("a round was void")
    return history


def _steps(federation: Federation) -> list[Steps]:
    """Return the steps of every round from the first country's log."""
    home = NodeHome(federation.nodes[federation.first].home)
    lines = ask(home.socket, "log_entries")["entries"]
    found: dict[int, dict[str, float]] = {}
    for line in lines:
        entry = json.loads(line)["entry"]
        step = STEPS.get((entry["kind"], entry.get("phase")))
        if step is not None:
            moment = datetime.fromisoformat(entry["at"]).timestamp()
            found.setdefault(entry["round"], {})[step] = moment
    return [Steps(**steps) for _, steps in sorted(found.items())]


def as_json(ours: Ours, stock: dict[str, float]) -> dict[str, Any]:
    """Return the figures of one run of both; the ratio is by the quicker way to await replies."""
    ours_round, quickest = median(ours.periods), min(stock.values())
    return {
        "ours_round_s": round(ours_round, 4),
        "ours_rounds": len(ours.periods),
        "stock_message_s": round(quickest, 4),
        "ratio_to_four_stock_messages": round(4 * quickest / ours_round, 1),
        "ours_slowest_round_s": round(max(ours.periods), 4),
        "ours_two_messages_s": round(median(ours.rounds), 4),
        "stock_by_way_of_waiting_s": {way: round(found, 4) for way, found in stock.items()},
        "ours_parts_s": {part: round(median(took), 4) for part, took in ours.parts.items()},
        "ours_cpu_s_a_round": {kind: round(used, 4) for kind, used in ours.cpu.items()},
        "dimension": DIMENSION,
        "countries": len(COUNTRIES),
        "patients_a_round": round(PATIENTS_EACH * len(COUNTRIES) * SAMPLING_RATE),
    }


def shortfalls(found: dict[str, Any]) -> list[str]:
    """Return what the figures miss, in words; empty where they miss nothing."""
    took, ratio = found["ours_round_s"], found["ratio_to_four_stock_messages"]
    missed = {
        f"{found['ours_rounds']} rounds are too few": found["ours_rounds"] < FEWEST_ROUNDS,
        f"a round takes {took} s, over {LONGEST_ROUND} s": took > LONGEST_ROUND,
        f"{ratio} times faster is less than {LEAST_RATIO}": ratio < LEAST_RATIO,
    }
    return [what for what, so in missed.items() if so]


def report(found: dict[str, Any]) -> None:
    """Print the figures."""
    goal = "the goal is met" if found["ours_round_s"] <= GOAL_ROUND else "the goal is missed"
    print(f"a private round of ours      {found['ours_round_s']:8.3f} s, {goal} ({GOAL_ROUND} s)")
    print(f"a plain message of stock's   {found['stock_message_s']:8.3f} s")
    print(f"four of those to one of ours {found['ratio_to_four_stock_messages']:8.1f}")
    print("parts of a round of ours, seconds as the first node's log has them:")
    for part, took in found["ours_parts_s"].items():
        print(f"  {part:28} {took:8.3f}")
    print("CPU seconds a round of ours:")
    for kind, used in found["ours_cpu_s_a_round"].items():
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
    """Run from the command line; return 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description="A private round beside a plain Flower message.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--messages", type=int, default=MESSAGES, help="of stock, each way")
    parser.add_argument("--ours-only", action="store_true", help="measure ours, write nothing")
    parser.add_argument("--keep", action="store_true", help="keep everything that was made")
    options = parser.parse_args()
    with _folder(keep=options.keep) as folder:
        (folder / "ours").mkdir()
        ours = measure_ours(folder / "ours", options.rounds)
        if options.ours_only:
            report(as_json(ours, {"not measured": float("nan")}))
            return 0
        (folder / "stock").mkdir()
        stock = plain_messages(folder / "stock", dimension=DIMENSION, messages=options.messages)
    found = as_json(ours, stock)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    report(found)
    missed = shortfalls(found)
    print("\n".join(missed) if missed else "Every bound is met.")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
