"""Measure memory, open files, threads and file sizes of a federation, from /proc and its folder."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.cpu import PROC, descendants

KINDS = (
    ("pratique-node", "node"),
    ("pratique-coordinator", "coordinator"),
    ("flower-superlink", "SuperLink"),
    ("flower-superexec", "SuperExec"),
    ("flwr-serverapp", "server app"),
)
"""A part of the command line, and the kind of process that it shows; the first match counts."""
DAEMON = "up"
MEMORY = Path("/dev/shm")  # noqa: S108 (only read)
MIB = 2**20


@dataclass(frozen=True)
class Usage:
    """What one process uses: resident memory in bytes, open files, threads."""

    memory: int
    files: int
    threads: int


@dataclass(frozen=True)
class Sample:
    """What all processes and stores use after a number of rounds; stores in bytes by name."""

    rounds: int
    processes: Mapping[str, Usage]
    stores: Mapping[str, int]


@dataclass(frozen=True)
class Trend:
    """How a figure changed from the first sample to the last; `per_100` is the fitted slope."""

    start: float
    end: float
    most: float
    per_100: float

    def as_json(self) -> dict[str, float]:
        """Return the figures, rounded."""
        return {name: round(value, 3) for name, value in vars(self).items()}


def sample(rounds: int, folder: Path) -> Sample:
    """Measure every process below this one, and every store in the federation's folder."""
    return Sample(rounds, dict(_processes()), _stores(folder))


def _processes() -> Iterator[tuple[str, Usage]]:
    for pid in descendants(os.getpid()):
        try:
            name = _name((PROC / str(pid) / "cmdline").read_bytes().decode().split("\0"))
            if name:
                yield name, usage(pid)
        except OSError:
            continue  # the process has just ended


def _name(words: Sequence[str]) -> str:
    """Return a daemon's kind, and a node's country; empty for a command."""
    line = " ".join(words)
    kind = next((kind for word, kind in KINDS if word in line), "")
    if kind in ("node", "coordinator") and DAEMON not in words:
        return ""
    if kind == "node":
        return f"{kind} {Path(words[words.index('--home') + 1]).name.removeprefix('n-')}"
    return kind


def usage(pid: int) -> Usage:
    """Return what a process uses. Raises OSError if there is none."""
    own = PROC / str(pid)
    lines = (own / "status").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    memory = int(facts["VmRSS"].split()[0]) * 1024
    return Usage(memory, len(list((own / "fd").iterdir())), int(facts["Threads"]))


def _stores(folder: Path) -> dict[str, int]:
    """Return bytes by store: each home's databases, logs and the rest, temporary files, memory."""
    sizes: dict[str, int] = defaultdict(int)
    for path in folder.rglob("*"):
        if path.is_file():
            sizes[_store(path.relative_to(folder).parts)] += _size(path)
    sizes["secrets in memory"] = sum(
        _size(path) for top in MEMORY.glob("pratique-*") for path in top.rglob("*")
    )
    return dict(sizes)


def _store(parts: Sequence[str]) -> str:
    """Return the store that a file belongs to, by its path below the federation's folder."""
    if parts[0] != "homes" or len(parts) < 3:
        return parts[0]
    file = parts[-1]
    if file.endswith(("-wal", "-shm")):
        return f"{parts[1]} write-ahead log"
    if ".log" in file:
        return f"{parts[1]} logs"
    return f"{parts[1]} {file if file == 'state.db' else 'rest'}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def trend(rounds: Sequence[int], values: Sequence[float]) -> Trend:
    """Return how a figure changed, with the slope of a line fitted to its values."""
    slope = float(np.polyfit(rounds, values, 1)[0]) if len(values) > 1 else 0.0
    return Trend(values[0], values[-1], max(values), 100 * slope)
