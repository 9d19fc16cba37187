"""Strangers without a certificate who take connections: honest parties and commands notice nothing.

Each stranger keeps a connection open and sends nothing, or half of a handshake, or something else,
and connects again at once when the exchange ends the connection.
"""

from contextlib import ExitStack, closing

import pytest

from tests.support.exchange_process import ExchangeProcess, exchange_process, honest_work
from tests.support.flood import flood, goes_on, latency
from tests.support.hostile_callers import MANY_ADDRESSES, OPENINGS, strangers

STRANGERS = 1_100
"""More connections than the usual limit of descriptors, 1,024."""
TIMES = 40
MOST_MIB = 120.0
"""How much memory the strangers may cost. A connection on which a handshake began costs gRPC about
60 KiB, and strangers have room for some hundred."""
FLOODS = {
    "from many addresses": (MANY_ADDRESSES, OPENINGS),
    "from the address of the honest parties": (("127.0.0.1",), OPENINGS[:1]),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_honest_parties_work_beside_a_thousand_strangers(kind: str) -> None:
    with exchange_process() as victim, ExitStack() as open_:
        links = {
            name: open_.enter_context(closing(victim.link(name)))
            for name in ("officer", "node", "guest")
        }
        quiet = latency(lambda: honest_work(links), TIMES)
        new = latency(lambda: connects_and_works(victim), 10)
        before = victim.memory_mib
        with flood(strangers, victim.port, *FLOODS[kind], STRANGERS):
            assert goes_on(lambda: honest_work(links), TIMES, quiet)
            assert goes_on(lambda: connects_and_works(victim), 10, new)
        assert victim.process.poll() is None
        assert victim.memory_mib - before < MOST_MIB


def connects_and_works(victim: ExchangeProcess) -> None:
    """Make a call over a new connection."""
    with closing(victim.link("officer")) as link:
        assert link.fetch("draft", seconds=5.0) == b"content"
