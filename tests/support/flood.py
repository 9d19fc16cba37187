"""A hostile flood in a process of its own, and how long honest work takes beside it.

The flood runs at the lowest priority and connects from other addresses of 127.0.0.0/8: it takes
the victim's sockets, memory and locks, and not the processor on which the test runs.
"""

import math
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from typing import Concatenate, ParamSpec

P = ParamSpec("P")
Attack = Callable[Concatenate[Event, Event, P], None]
"""Called as `attack(ready, stop, *arguments)`: it sets `ready` once the flood is at its height, and
returns when `stop` is set. A module-level function, since another process imports it."""
LOWEST_PRIORITY = 19
STARTING_SECONDS = 60.0
ENDING_SECONDS = 10.0
MOST_TIMES_SLOWER = 3.0
UNNOTICED_SECONDS = 0.1
TRIES = 3


@contextmanager
def flood(attack: Attack[P], *args: P.args, **kwargs: P.kwargs) -> Iterator[None]:
    """Run `attack` in another process while the block runs, from the moment it is ready."""
    spawning = multiprocessing.get_context("spawn")
    ready, stop = spawning.Event(), spawning.Event()
    child = spawning.Process(target=_run, args=(attack, ready, stop, args, kwargs), daemon=True)
    child.start()
    try:
        _wait(child, ready)
        yield
        assert child.exitcode in {None, 0}, "the flood itself failed"
    finally:
        stop.set()
        child.join(ENDING_SECONDS)
        child.kill()
        child.join()


def _wait(child: multiprocessing.process.BaseProcess, ready: Event) -> None:
    until = time.monotonic() + STARTING_SECONDS
    while not ready.wait(0.1):
        assert child.is_alive() or ready.is_set(), f"the flood ended: {child.exitcode}"
        assert time.monotonic() < until, "the flood did not begin"


def _run(
    attack: Callable[..., None],
    ready: Event,
    stop: Event,
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> None:
    os.nice(LOWEST_PRIORITY)
    attack(ready, stop, *args, **kwargs)


def connect_from(source: str, port: int, seconds: float = 5.0) -> socket.socket:
    """Return a TCP connection to `port` of 127.0.0.1 from another loopback address."""
    return socket.create_connection(("127.0.0.1", port), seconds, source_address=(source, 0))


@dataclass(frozen=True)
class Latency:
    """How long each of some calls took, in seconds."""

    seconds: tuple[float, ...]

    @property
    def p95(self) -> float:
        """The time within which 95 % of the calls were done."""
        return sorted(self.seconds)[math.ceil(0.95 * len(self.seconds)) - 1]

    def is_at_most(self, quiet: "Latency") -> bool:
        """Whether honest work goes on: at most three times the quiet p95, or 100 ms if more."""
        return self.p95 <= max(MOST_TIMES_SLOWER * quiet.p95, UNNOTICED_SECONDS)


def goes_on(call: Callable[[], object], times: int, quiet: Latency, pause: float = 0.0) -> bool:
    """Return whether an honest call is about as quick beside a flood as it was without.

    Other work may have the processor for a while: so it is measured again, if it must be, twice.
    """
    return any(latency(call, times, pause).is_at_most(quiet) for _ in range(TRIES))


def latency(call: Callable[[], object], times: int, pause: float = 0.0) -> Latency:
    """Make an honest call several times, one after the other. A call that fails, fails the test."""
    seconds = []
    for _ in range(times):
        begun = time.monotonic()
        call()
        seconds.append(time.monotonic() - begun)
        time.sleep(pause)
    return Latency(tuple(seconds))
