"""A guest with one invitation who leaves calls unfinished: nobody else notices, no memory is used.

A call may be opened and never continued, have a body that is too large, be made many times over
many connections, or have a reply that nobody takes.
"""

import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support.coordinator_process import coordinator_process
from tests.support.exchange_process import (
    USUAL_DESCRIPTORS,
    ExchangeProcess,
    exchange_process,
    honest_work,
)
from tests.support.flood import flood, goes_on, latency
from tests.support.hostile_callers import (
    MANY_ADDRESSES,
    OPENINGS,
    oversized,
    strangers,
    unfinished,
)

TIMES = 40
MOST_PEAK_MIB = 400.0
MOST_MIB = 100.0
"""How much memory a guest may cost: the 24 refused requests had cost 1.6 GiB and more."""


@pytest.mark.parametrize("attack", [unfinished, oversized])
def test_others_work_beside_a_guest_who_finishes_nothing(attack: object) -> None:
    with exchange_process() as victim, ExitStack() as open_:
        links = {
            name: open_.enter_context(closing(victim.link(name)))
            for name in ("officer", "node", "guest")
        }
        quiet = latency(lambda: honest_work(links), TIMES)
        before, guest = victim.memory_mib, victim.parties["hostile guest"]
        with flood(attack, victim.port, victim.authority, guest):  # type: ignore[arg-type]
            assert goes_on(lambda: honest_work(links), TIMES, quiet)
            connects_and_works(victim)
        assert victim.process.poll() is None
        assert victim.memory_mib - before < MOST_MIB


def connects_and_works(victim: ExchangeProcess) -> None:
    """Make the calls of honest parties over new connections."""
    with ExitStack() as open_:
        names = ("officer", "node", "guest")
        honest_work({name: open_.enter_context(closing(victim.link(name))) for name in names})


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_real_coordinator_answers_its_operator_beside_all_floods() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="pq-") as folder,  # a short path: sockets are below it
        coordinator_process(Path(folder), USUAL_DESCRIPTORS) as coordinator,
        ExitStack() as open_,
    ):
        link = open_.enter_context(closing(coordinator.link(coordinator.officer())))

        def work() -> None:
            coordinator.ask("status")
            assert link.fetch("draft", seconds=10.0) is None

        quiet, guest = latency(work, TIMES), coordinator.guest()
        port, authority = coordinator.port, coordinator.authority
        open_.enter_context(flood(strangers, port, MANY_ADDRESSES, OPENINGS, 1_100))
        open_.enter_context(flood(unfinished, port, authority, guest))
        open_.enter_context(flood(oversized, port, authority, guest))
        assert goes_on(work, TIMES, quiet)
        invited = coordinator.ask("invitations")[-1]
        assert invited["id"] in coordinator.command("invitation", "revoke", invited["id"])
        assert coordinator.officer("CZ")
        assert coordinator.process.poll() is None
        assert coordinator.peak_mib < MOST_PEAK_MIB
