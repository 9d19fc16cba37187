"""Check that a federation stays stable over many rounds: `make bench-soak`.

The real commands and daemons run on loopback: a coordinator, four node processes, one study of many
rounds. Every ten rounds, memory, open files and threads of each process and the size of each store
are measured. After a warm-up they must not grow; logs may grow by what is logged.
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
from bench.rounds import started_federation
from bench.wide import STUDY
from demo.federation import Federation
from demo.party import Processes

RESULTS = Path(__file__).with_name("results") / "soak.json"
ROUNDS, EVERY = 500, 10
WARM_UP = 0.2
"""The part of the rounds in which caches fill, pools grow and libraries are imported."""
BOUNDS = {
    "memory_mib": (2.0, 4.0),
    "open_files": (2.0, 6.0),
    "threads": (2.0, 4.0),
}
"""How much a process may grow in 100 rounds after the warm-up, and from the first sample to the
last. Both must be exceeded: a pool's few more files are no trend, nor a slope over few rounds."""
DATABASE, OTHER_STORE = (2.0, 1.0), (0.1, 0.1)
"""The same for stores, in MiB. A database grows only by the audit log, which keeps all entries."""
WRITE_AHEAD, MAX_AHEAD = "write-ahead log", 16.0
"""MiB: it grows to the size of the changes between two checkpoints, and then stays."""


def soak(folder: Path, rounds: int, every: int) -> tuple[list[Sample], list[dict[str, Any]]]:
    """Run a study of `rounds`; return the samples, and each round's report."""
    for name in ("logs", "tmp"):
        (folder / name).mkdir()
    processes = Processes(folder / "logs")
    try:
        with redirect_stdout(io.StringIO()):
            federation = started_federation(folder, rounds, processes)
        return _watched(federation, folder, every)
    finally:
        processes.end_all()


def _watched(
    federation: Federation, folder: Path, every: int
) -> tuple[list[Sample], list[dict[str, Any]]]:
    federation.coordinator.run("study", "launch", STUDY)
    samples: list[Sample] = []
    run: dict[str, Any] = {}
    with federation.coordinator.lines("study", "watch", STUDY, "--json") as lines:
        for line in lines:
            run = json.loads(line)
            due = len(samples) * every
            if not run["over"] and run["round"] >= max(due, 1):
                samples.append(sample(run["round"], folder))
                print(f"\r{run['round']} of {run['rounds']} rounds ", end="", flush=True)
    print()
    if run["state"] != "finished":
        raise RuntimeError(f"the run is {run['state']}: {run['reason']}")
    history: list[dict[str, Any]] = run["history"]
    return samples, history


def as_json(samples: Sequence[Sample], history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the trends after the warm-up, of every store and every process that ran throughout."""
    warm = [each for each in samples if each.rounds >= WARM_UP * samples[-1].rounds]
    at = [each.rounds for each in warm]
    seconds = [float(entry["seconds"]) for entry in history]
    lasting = set.intersection(*(set(each.processes) for each in warm))
    stores = sorted({name for each in warm for name in each.stores})
    return {
        "rounds": len(history),
        "void_rounds": sum(entry["outcome"] != "opened" for entry in history),
        "samples_after_warm_up": len(warm),
        "round_s_first_and_last_fifth": [
            round(median(part), 4) for part in (_fifth(seconds), _fifth(seconds[::-1]))
        ],
        "processes": {
            name: {
                "memory_mib_each_time": [
                    round(each.processes[name].memory / MIB, 1)
                    for each in samples
                    if name in each.processes
                ],
                "memory_mib": _of(warm, at, name, "memory", MIB).as_json(),
                "open_files": _of(warm, at, name, "files").as_json(),
                "threads": _of(warm, at, name, "threads").as_json(),
            }
            for name in sorted(lasting)
        },
        "stores_mib": {
            name: trend(at, [each.stores.get(name, 0) / MIB for each in warm]).as_json()
            for name in stores
        },
    }


def _fifth(values: Sequence[float]) -> Sequence[float]:
    return values[: max(1, len(values) // 5)]


def _of(warm: Sequence[Sample], at: Sequence[int], name: str, what: str, unit: int = 1) -> Trend:
    return trend(at, [getattr(each.processes[name], what) / unit for each in warm])


def shortfalls(results: dict[str, Any]) -> list[str]:
    """Return what grows more than it may, in words; empty if nothing does."""
    missed = [f"{results['void_rounds']} rounds were void"] if results["void_rounds"] else []
    for name, figures in results["processes"].items():
        for what, bound in BOUNDS.items():
            missed += _over(f"{name}, {what}", figures[what], bound)
    for name, figures in results["stores_mib"].items():
        if name.endswith(WRITE_AHEAD):
            most = figures["most"]
            missed += [f"{name} has {most} MiB, over {MAX_AHEAD}"] if most > MAX_AHEAD else []
        else:
            missed += _over(name, figures, DATABASE if name.endswith("state.db") else OTHER_STORE)
    return missed


def _over(name: str, figures: dict[str, float], bound: tuple[float, float]) -> list[str]:
    """Return in words that a figure grows, if both its slope and its growth exceed the bound."""
    slope, growth = figures["per_100"], figures["end"] - figures["start"]
    if slope <= bound[0] or growth <= bound[1]:
        return []
    return [f"{name} grows by {slope} in 100 rounds, over {bound[0]}; by {growth:.3f} in all"]


def report(results: dict[str, Any]) -> None:
    """Print the figures."""
    first, last = results["round_s_first_and_last_fifth"]
    print(f"{results['rounds']} rounds; a round took {first:.2f} s at first, {last:.2f} s at last")
    print(f"{'':28}{'at first':>10}{'at last':>10}{'per 100 rounds':>16}")
    for name, figures in results["processes"].items():
        for what, unit in (("memory_mib", "MiB"), ("open_files", "files"), ("threads", "threads")):
            _line(f"{name}, {unit}", figures[what])
    for name, figures in results["stores_mib"].items():
        _line(f"{name}, MiB", figures)


def _line(name: str, figures: dict[str, float]) -> None:
    print(f"{name:28}{figures['start']:10.2f}{figures['end']:10.2f}{figures['per_100']:16.3f}")


def main() -> int:
    """Run from the command line; return 1 if something grows."""
    parser = argparse.ArgumentParser(description="Measure a federation over many rounds.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--every", type=int, default=EVERY, help="rounds between two samples")
    parser.add_argument("--keep", action="store_true", help="keep all files of the run")
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
    results = as_json(samples, history)
    if not options.print_only:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    report(results)
    missed = shortfalls(results)
    print("\n".join(missed) if missed else "Nothing grows.")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
