"""A guest with one invitation who leaves calls unfinished: nobody else notices, no memory is used.

A call may be opened and never continued, have a body that is too large, be made many times over
many connections, or have a reply that nobody takes.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from multiprocessing.synchronize import Event
from typing import Any

import grpc
import pytest

from protocols.proto.exchange_pb2 import FetchRequest, RequestPart
from protocols.wire.request_parts import PART_BYTES
from tests.support.exchange_process import ExchangeProcess, exchange_process, honest_work
from tests.support.exchange_server import LOOPBACK, Caller
from tests.support.flood import flood, latency

CALLS = 1_100
LARGE_CALLS, LARGE = 24, 60 * 2**20
CONNECTIONS = 12
TIMES = 40
MOST_MIB = 100.0
"""How much memory a guest may cost: the 24 refused requests had cost 1.6 GiB and more."""
SERVICE = "/pratique.exchange.v1.Exchange/"


def channels(port: int, authority: bytes, who: Caller, count: int) -> list[grpc.Channel]:
    """Return channels with a connection each."""
    credentials = grpc.ssl_channel_credentials(authority, who.key, who.certificate)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    return [
        grpc.secure_channel(f"{LOOPBACK}:{port}", credentials, options=options)
        for _ in range(count)
    ]


def begun(channel: grpc.Channel, name: str, messages: Iterator[bytes]) -> Any:
    """Begin a call with these bytes as its messages; return its future."""
    return channel.stream_unary(SERVICE + name, None, None).future(messages)


def unfinished(ready: Event, stop: Event, port: int, authority: bytes, who: Caller) -> None:
    """Open calls that are never continued, of every kind, over few connections."""
    opened = channels(port, authority, who, CONNECTIONS)
    ended = threading.Event()

    def never() -> Iterator[bytes]:
        ended.wait()
        yield b""

    names = ("Enrol", "Renew", "Fetch", "Submit", "Relay")
    calls = [
        begun(opened[number % CONNECTIONS], names[number % 5], never()) for number in range(CALLS)
    ]
    ready.set()
    stop.wait()
    ended.set()
    for call in calls:
        call.cancel()


def oversized(ready: Event, stop: Event, port: int, authority: bytes, who: Caller) -> None:
    """Make calls with large bodies, whole and in parts, over and over."""
    opened = channels(port, authority, who, CONNECTIONS)
    whole = FetchRequest(path="x" * LARGE).SerializeToString()
    part = RequestPart(size=LARGE, content=bytes(PART_BYTES)).SerializeToString()

    def endless() -> Iterator[bytes]:
        while not stop.is_set():
            yield part

    while not stop.is_set():
        calls = [
            begun(
                opened[number % CONNECTIONS],
                ("Enrol", "Relay", "Submit")[number % 3],
                endless() if number % 2 else iter([whole]),
            )
            for number in range(LARGE_CALLS)
        ]
        for call in calls:
            call.exception()
        ready.set()


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
