"""Measure the CPU seconds of this program's child processes by kind, from /proc."""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SAMPLE_SECONDS = 0.1
TICKS = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


@dataclass
class CpuMeter:
    """Samples taken while `running`: (seconds since the epoch, CPU seconds by kind)."""

    kinds: Mapping[str, str]
    """A part of the command line, and the kind of process that it shows; the first match counts."""
    samples: list[tuple[float, Counter[str]]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _seen: dict[int, tuple[str, float]] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Sample until the block ends."""
        thread = threading.Thread(target=self._sample, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def between(self, start: float, end: float) -> dict[str, float]:
        """Return the CPU seconds of each kind between two moments, seconds since the epoch."""
        first, last = self._at(start), self._at(end)
        return {kind: last[kind] - first[kind] for kind in sorted(last)}

    def _at(self, moment: float) -> Counter[str]:
        return min(self.samples, key=lambda sample: abs(sample[0] - moment))[1]

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            for pid in descendants(os.getpid()):
                self._look(pid)
            total: Counter[str] = Counter()
            for kind, seconds in self._seen.values():
                total[kind] += seconds  # type: ignore[assignment]  # seconds are not integers
            self.samples.append((time.time(), total))

    def _look(self, pid: int) -> None:
        """Note the CPU time of a process; one that has ended keeps the time that was seen last."""
        try:
            line = (PROC / str(pid) / "cmdline").read_bytes().decode()
            used = cpu_seconds(pid)
        except OSError:
            return
        kind = next((kind for part, kind in self.kinds.items() if part in line), None)
        if kind is not None:
            self._seen[pid] = kind, used


def cpu_seconds(pid: int) -> float:
    """Return the user and system seconds of a process; proc(5), fields 14 and 15."""
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def descendants(pid: int) -> list[int]:
    """Return the ids of all processes that a process started, directly or not."""
    below: list[int] = []
    for task in (PROC / str(pid) / "task").glob("*/children"):
        try:
            children = [int(word) for word in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            below += [child, *descendants(child)]
    return below
