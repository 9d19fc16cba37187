"""Whether a federation can be left running: `make bench-soak`.

The real commands and daemons on loopback, a coordinator and four node processes, one study of many
rounds. Memory, open files and threads of every process and the size of every store are taken each
ten rounds; after a warm-up their trends have to be flat, or for logs, as small as what is logged.
"""

import argparse
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

from bench.meters import MIB, Sample, Trend, sample, trend
from bench.rounds import raised
from bench.wide import STUDY
from demo.federation import Federation
from demo.party import Processes

RESULTS = Path(__file__).with_name("results") / "soak.json"
ROUNDS, EVERY = 500, 10
WARM_UP = 0.2
"""Part of the rounds in which caches fill, pools grow and libraries are imported."""
BOUNDS = {
    "memory_mib": (2.0, 4.0),
    "open_files": (2.0, 6.0),
    "threads": (2.0, 4.0),
}
"""What a process may grow by in a hundred rounds after the warm-up, and from the first sample to
the last: a pool's few files more are no trend, and a slope over few rounds means little."""
DATABASE, KEPT = (2.0, 1.0), (0.1, 0.1)
"""MiB likewise. A database grows by the audit log alone, which keeps every
entry."""
WRITE_AHEAD, MOST_AHEAD = "write-ahead log", 16.0
"""MiB: it grows to what lies between two checkpoints, and stays."""


def soak(folder: Path, rounds: int, every: int) -> tuple[list[Sample], list[dict[str, Any]]]:
    """Carry a study of so many rounds; return what was sampled, and each round's report."""
    for name in ("logs", "tmp"):
        (folder / name).mkdir()
    processes = Processes(folder / "logs")
    try:
        with redirect_stdout(io.StringIO()):
            federation = raised(folder, rounds, processes)
        return _watched(federation, folder, every)
    finally:
        processes.end_all()


def _watched(
    federation: Federation, folder: Path, every: int
) -> tuple[list[Sample], list[dict[str, Any]]]:
    federation.coordinator.run("study", "launch", STUDY)
    samples: list[Sample] = []
    found: dict[str, Any] = {}
    with federation.coordinator.lines("study", "watch", STUDY, "--json") as lines:
        for line in lines:
            found = json.loads(line)
            due = len(samples) * every
            if not found["over"] and found["round"] >= max(due, 1):
                samples.append(sample(found["round"], folder))
                print(f"\r{found['round']} of {found['rounds']} rounds ", end="", flush=True)
    print()
    if found["state"] != "finished":
        raise RuntimeError(f"the run is {found['state']}: {found['reason']}")
    history: list[dict[str, Any]] = found["history"]
    return samples, history


def as_json(samples: Sequence[Sample], history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return trends after the warm-up, of every process that lived as long and every store."""
    kept = [one for one in samples if one.rounds >= WARM_UP * samples[-1].rounds]
    at = [one.rounds for one in kept]
    seconds = [float(one["seconds"]) for one in history]
    lasting = set.intersection(*(set(one.processes) for one in kept))
    stores = sorted({name for one in kept for name in one.stores})
    return {
        "rounds": len(history),
        "void_rounds": sum(one["outcome"] != "opened" for one in history),
        "samples_after_warm_up": len(kept),
        "round_s_first_and_last_fifth": [
            round(median(part), 4) for part in (_fifth(seconds), _fifth(seconds[::-1]))
        ],
        "processes": {
            name: {
                "memory_mib_each_time": [
                    round(one.processes[name].memory / MIB, 1)
                    for one in samples
                    if name in one.processes
                ],
                "memory_mib": _of(kept, at, name, "memory", MIB).as_json(),
                "open_files": _of(kept, at, name, "files").as_json(),
                "threads": _of(kept, at, name, "threads").as_json(),
            }
            for name in sorted(lasting)
        },
        "stores_mib": {
            name: trend(at, [one.stores.get(name, 0) / MIB for one in kept]).as_json()
            for name in stores
        },
    }


def _fifth(values: Sequence[float]) -> Sequence[float]:
    return values[: max(1, len(values) // 5)]


def _of(kept: Sequence[Sample], at: Sequence[int], name: str, what: str, unit: int = 1) -> Trend:
    return trend(at, [getattr(one.processes[name], what) / unit for one in kept])


def shortfalls(found: dict[str, Any]) -> list[str]:
    """Return what grows more than it may, in words; empty if nothing does."""
    missed = [f"{found['void_rounds']} rounds were void"] if found["void_rounds"] else []
    for name, figures in found["processes"].items():
        for what, bound in BOUNDS.items():
            missed += _over(f"{name}, {what}", figures[what], bound)
    for name, figures in found["stores_mib"].items():
        if name.endswith(WRITE_AHEAD):
            most = figures["most"]
            missed += [f"{name} takes {most} MiB, over {MOST_AHEAD}"] if most > MOST_AHEAD else []
        else:
            missed += _over(name, figures, DATABASE if name.endswith("state.db") else KEPT)
    return missed


def _over(name: str, figures: dict[str, float], bound: tuple[float, float]) -> list[str]:
    """Return that a figure grows, where both its slope and its growth are over the bound."""
    slope, growth = figures["per_100"], figures["end"] - figures["start"]
    if slope <= bound[0] or growth <= bound[1]:
        return []
    return [f"{name} grows by {slope} in 100 rounds, over {bound[0]}; by {growth:.3f} in all"]


def report(found: dict[str, Any]) -> None:
    """Print the figures."""
    first, last = found["round_s_first_and_last_fifth"]
    print(f"{found['rounds']} rounds; a round took {first:.2f} s at first, {last:.2f} s at last")
    print(f"{'':28}{'at first':>10}{'at last':>10}{'per 100 rounds':>16}")
    for name, figures in found["processes"].items():
        for what, unit in (("memory_mib", "MiB"), ("open_files", "files"), ("threads", "threads")):
            _line(f"{name}, {unit}", figures[what])
    for name, figures in found["stores_mib"].items():
        _line(f"{name}, MiB", figures)


def _line(name: str, figures: dict[str, float]) -> None:
    print(f"{name:28}{figures['start']:10.2f}{figures['end']:10.2f}{figures['per_100']:16.3f}")


def main() -> int:
    """Run from the command line; return 1 where something grows."""
    parser = argparse.ArgumentParser(description="A federation over many rounds.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--every", type=int, default=EVERY, help="rounds between two samples")
    parser.add_argument("--keep", action="store_true", help="keep everything that was made")
    parser.add_argument("--print-only", action="store_true", help="write no results")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        samples, history = soak(folder, options.rounds, options.every)
    finally:
        if options.keep:
            print(f"Kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    found = as_json(samples, history)
    if not options.print_only:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    report(found)
    missed = shortfalls(found)
    print("\n".join(missed) if missed else "Nothing grows.")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
