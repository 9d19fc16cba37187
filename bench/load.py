"""Check that honest parties are served beside a flood of hostile ones: `make bench-load`.

A real coordinator with the usual limit of 1,024 descriptors serves 200 officers. Beside them, for
five minutes, strangers hold 2,000 connections, a guest and a member leave calls open by the
thousand, and both send bodies that are too large, over and over. No honest call may fail, honest
calls may be three times as slow as without the flood (or take 100 ms, if that is more), and the
coordinator may use 1 GiB of memory.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from governance.documents.models import ASSIGNED_COUNTRIES
from protocols.wire.channel import ExchangeLink, LinkFault
from tests.support.coordinator_process import CoordinatorProcess, coordinator_process
from tests.support.exchange_server import Caller
from tests.support.flood import Latency, flood
from tests.support.hostile_callers import MANY_ADDRESSES, OPENINGS, oversized, strangers, unfinished

RESULTS = Path(__file__).with_name("results") / "load.json"
SECONDS, QUIET_SECONDS = 300.0, 20.0
PARTIES, AT_ONCE, CALLS_A_SECOND = 200, 8, 40.0
STRANGERS, DESCRIPTORS = 2_000, 1_024
HOSTILE = ("PL", "PT")
COUNTRIES = sorted(ASSIGNED_COUNTRIES - set(HOSTILE))[:PARTIES]
"""Each party has limits of its own, so the honest ones are of different countries."""
MOST_MIB = 1_024.0
CALL_SECONDS = 10.0


@dataclass
class Honest:
    """The honest calls of a period: how long each took, and why some failed."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def p95_ms(self) -> float:
        """The time within which 95 % of the calls were answered."""
        return round(1_000 * Latency(tuple(self.seconds)).p95, 1)


def measured(links: Sequence[ExchangeLink], seconds: float) -> Honest:
    """Make honest calls at a steady rate, by one party after the other."""
    honest, pause = Honest(), AT_ONCE / CALLS_A_SECOND
    ends = time.monotonic() + seconds

    def work(own: Sequence[ExchangeLink]) -> None:
        for link in itertools.cycle(own):
            begun = time.monotonic()
            if begun > ends:
                return
            try:
                link.fetch("draft", CALL_SECONDS)
                honest.seconds.append(time.monotonic() - begun)
            except LinkFault as fault:
                honest.failures.append(str(fault))
            time.sleep(max(0.0, pause - (time.monotonic() - begun)))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(work, [links[number::AT_ONCE] for number in range(AT_ONCE)]))
    return honest


def load(folder: Path, seconds: float) -> dict[str, Any]:
    """Run everything; return the figures."""
    with coordinator_process(folder, DESCRIPTORS) as coordinator, ExitStack() as open_:
        officers = [coordinator.officer(country) for country in COUNTRIES]
        links = [open_.enter_context(closing(coordinator.link(officer))) for officer in officers]
        quiet = measured(links, min(QUIET_SECONDS, seconds))
        member, guest = coordinator.officer(HOSTILE[0]), coordinator.guest(HOSTILE[1])
        for attack in _attacks(coordinator, member, guest):
            open_.enter_context(attack)
        beside = measured(links, seconds)
        coordinator.ask("status")
        return {
            "honest_calls": len(quiet.seconds) + len(beside.seconds),
            "honest_failures": len(quiet.failures) + len(beside.failures),
            "quiet_p95_ms": quiet.p95_ms,
            "p95_ms": beside.p95_ms,
            "peak_mib": round(coordinator.peak_mib, 1),
            "hostile_connections": STRANGERS,
            "seconds": seconds,
            "failures": sorted(set(quiet.failures + beside.failures))[:5],
        }


def _attacks(coordinator: CoordinatorProcess, member: Caller, guest: Caller) -> list[Any]:
    port, authority = coordinator.port, coordinator.authority
    return [
        flood(strangers, port, MANY_ADDRESSES, OPENINGS, STRANGERS),
        flood(unfinished, port, authority, guest),
        flood(unfinished, port, authority, member),
        flood(oversized, port, authority, guest),
        flood(oversized, port, authority, member),
    ]


def shortfalls(results: dict[str, Any]) -> list[str]:
    """Return in words what is missed; empty if nothing is."""
    missed = []
    if results["honest_failures"]:
        why = "; ".join(results["failures"])
        missed.append(f"{results['honest_failures']} honest calls failed: {why}")
    bound = max(3 * results["quiet_p95_ms"], 100.0)
    if results["p95_ms"] > bound:
        missed.append(f"honest calls took {results['p95_ms']} ms (p95), over {bound:.0f} ms")
    if results["peak_mib"] >= MOST_MIB:
        missed.append(f"the coordinator used {results['peak_mib']} MiB, over {MOST_MIB:.0f} MiB")
    return missed


def main() -> int:
    """Run from the command line; return 1 if a bound is missed."""
    parser = argparse.ArgumentParser(description="Measure a coordinator beside hostile parties.")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long the flood lasts")
    parser.add_argument("--print-only", action="store_true", help="write no results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        results = load(Path(folder), options.seconds)
    print(json.dumps(results, indent=1))
    if not options.print_only:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    missed = shortfalls(results)
    for what in missed:
        print(f"MISSED: {what}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
