"""Members state large requests and send no more of them: others' large requests get through."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import grpc
import pytest
from flwr.proto.fleet_pb2 import ActivateNodeRequest

from keys.certificates import TransportAuthority
from protocols.proto.exchange_pb2 import RelayRequest, RequestPart
from protocols.wire.channel import MAX_MESSAGE, SESSION_KEY, ExchangeLink, LinkFault
from protocols.wire.flower_frame import SESSION_BYTES
from protocols.wire.request_parts import PART_BYTES
from server.exchange import call_limits
from server.exchange.fencing import Fence
from server.exchange.relay import Relay
from tests.support.exchange_process import FILE
from tests.support.exchange_server import (
    Caller,
    OpenExchange,
    OpenFence,
    ScriptedSuperLink,
    ServedFiles,
    caller,
    now,
)
from tests.support.hostile_callers import SERVICE, channels
from tests.support.waiting import WAIT_SECONDS

ACTING, OTHER = b"a" * SESSION_BYTES, b"o" * SESSION_BYTES


@contextmanager
def exchange_of(fence: Fence) -> Iterator[OpenExchange]:
    relay = Relay(ScriptedSuperLink().forward, fence=fence, heartbeat=0, long_poll=0)
    files = ServedFiles({FILE: b"content"})
    authority = TransportAuthority.create("danube", now())
    opened = OpenExchange(authority, relay, enrolments=None, documents=files)
    for number, country in enumerate(("AT", "BE", "CZ", "DE", "HU", "SE")):
        opened.open_session(country, number + 1, country.encode())
    with closing(opened):
        yield opened


class Uploads:
    """Uploads that state a size, send the first part and then nothing."""

    def __init__(self, exchange: OpenExchange) -> None:
        self._exchange, self._stop, self.calls = exchange, threading.Event(), list[Any]()

    def begin(self, who: Caller, session: bytes, size: int = MAX_MESSAGE) -> None:
        """Begin one, and return when the exchange has asked for its second part, or refused it."""
        authority = self._exchange.authority.certificate_pem
        (channel,) = channels(self._exchange.port, authority, who, 1)
        sent = threading.Event()

        def parts() -> Iterator[bytes]:
            yield RequestPart(size=size, content=bytes(PART_BYTES)).SerializeToString()
            sent.set()
            self._stop.wait()

        relay = channel.stream_unary(SERVICE + "Relay", None, None)
        self.calls.append(relay.future(parts(), metadata=((SESSION_KEY, session),)))
        assert sent.wait(WAIT_SECONDS)

    def close(self) -> None:
        self._stop.set()
        for call in self.calls:
            call.cancel()


def uploads_of(link: ExchangeLink) -> str:
    """Upload 100 KB; return what the relay says about it once it has all of it."""
    request = RelayRequest(method="PushMessages", body=bytes(100_000), session=ACTING)
    with pytest.raises(LinkFault, match="PushMessages request has") as refused:
        link.relay(request, 5.0)
    return str(refused.value)


def test_one_country_with_several_certificates_and_sessions_makes_no_other_one_wait() -> None:
    with exchange_of(Fence()) as exchange, ExitStack() as open_:
        first, renewed, honest = (caller(exchange.authority, each) for each in ("AT", "AT", "SE"))
        link = open_.enter_context(closing(exchange.link(first)))
        sign_in = ActivateNodeRequest(public_key=b"AT").SerializeToString()
        request = RelayRequest(method="ActivateNode", body=sign_in, session=ACTING, incarnation=1)
        assert link.relay(request, 5.0).status == 200
        uploads = open_.enter_context(closing(Uploads(exchange)))
        for who in (first, renewed):
            for session in (ACTING, OTHER):
                uploads.begin(who, session)
        assert "100000 bytes" in uploads_of(open_.enter_context(closing(exchange.link(honest))))
        for call in uploads.calls[1::2]:
            assert "does not act for the node" in call.exception(WAIT_SECONDS).details()
        assert not any(call.done() for call in uploads.calls[::2])


def test_five_countries_that_stall_together_make_no_other_one_wait_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(call_limits, "START_SECONDS", 0.0)
    monkeypatch.setattr(call_limits, "SLOWEST", 2**40)
    monkeypatch.setattr(call_limits, "CHECK_SECONDS", 0.05)
    with exchange_of(OpenFence()) as exchange, ExitStack() as open_:
        uploads = open_.enter_context(closing(Uploads(exchange)))
        for country in ("AT", "BE", "CZ", "DE"):
            uploads.begin(caller(exchange.authority, country), ACTING)
        uploads.begin(caller(exchange.authority, "HU"), ACTING, 40 * 2**20)
        honest = caller(exchange.authority, "SE")
        assert "100000 bytes" in uploads_of(open_.enter_context(closing(exchange.link(honest))))
        for call in uploads.calls:
            fault = call.exception(WAIT_SECONDS)
            assert fault.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "others wait for the memory" in fault.details()
