"""A guest with one invitation who leaves calls unfinished: nobody else notices, no memory is used.

A call may be opened and never continued, have a body that is too large, be made many times over
many connections, or have a reply that nobody takes.
"""

from contextlib import ExitStack, closing

import pytest

from tests.support.exchange_process import ExchangeProcess, exchange_process, honest_work
from tests.support.flood import flood, latency
from tests.support.hostile_callers import oversized, unfinished

TIMES = 40
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
            beside = latency(lambda: honest_work(links), TIMES)
            connects_and_works(victim)
        assert victim.process.poll() is None
        assert beside.is_at_most(quiet)
        assert victim.memory_mib - before < MOST_MIB


def connects_and_works(victim: ExchangeProcess) -> None:
    """Make the calls of honest parties over new connections."""
    with ExitStack() as open_:
        names = ("officer", "node", "guest")
        honest_work({name: open_.enter_context(closing(victim.link(name))) for name in names})
