"""Limits on the number, the size and the age of one party's calls to the exchange."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from keys.certificates import Peer, Role
from protocols.proto import exchange_pb2
from protocols.wire.channel import SESSION_KEY, sent_as
from protocols.wire.request_parts import PART_BYTES
from server.exchange import service as service_module
from server.exchange.fencing import ACTS, Claim, Rank
from server.exchange.holders import LITTLE_BYTES, OF_GUEST, OF_MEMBER
from server.exchange.relay_session import CallReply
from server.exchange.service import CALL_SECONDS, LARGEST_REQUEST, ExchangeService

NOW = datetime(2026, 11, 1, tzinfo=UTC)
PULL = exchange_pb2.RelayRequest(method="PullMessages")


class Aborted(Exception):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self.code, self.details = code, details


class Context:
    """A call of one party; `finish` is what gRPC does when its reply has arrived."""

    def __init__(self, country: str = "PL", role: Role = Role.NODE) -> None:
        self.party = Peer("north-sea", country, role, 1, NOW + timedelta(days=1))
        self._done: list[Callable[[Any], None]] = []

    def invocation_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return ()

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.finish()
        raise Aborted(code, details)

    def peer(self) -> str:
        return "unix-abstract:x"

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._done.append(callback)

    def finish(self) -> None:
        for callback in self._done:
            callback(self)


class SlowRelay:
    def __init__(self) -> None:
        self.go, self.calls = asyncio.Event(), 0

    def claim(self, *_: Any) -> Claim:
        return ACTS

    async def call(self, *_: Any, **__: Any) -> CallReply:
        self.calls += 1
        await self.go.wait()
        return CallReply(200, b"")


class Published:
    def fetch(self, path: str) -> bytes | None:
        return path.encode()

    def submit(self, *_: Any) -> None:
        return None

    def is_renewal(self, *_: Any) -> bool:
        return False


Service = tuple[ExchangeService, SlowRelay]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    async def peer(self: ExchangeService, context: Context, *_: Any) -> tuple[Peer, Claim]:
        return context.party, self._relay.claim(context.party.country, b"", "")

    monkeypatch.setattr(ExchangeService, "_peer", peer)
    relay = SlowRelay()
    exchange = ExchangeService(
        register=SimpleNamespace(on_revoked=lambda _: None),
        enrolments=None,  # type: ignore[arg-type]
        documents=Published(),
        relay=relay,  # type: ignore[arg-type]
        clock=lambda: NOW,
        on_refusal=lambda *_: None,
    )
    return exchange, relay


async def arriving(messages: Any) -> AsyncIterator[Any]:
    for message in messages:
        yield message


async def never() -> AsyncIterator[Any]:
    await asyncio.Event().wait()
    yield


def made(exchange: ExchangeService, call: str, request: Message, context: Context) -> Any:
    return getattr(exchange, call)(arriving(sent_as(call, request)), context)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_calls_of_one_party_are_limited_without_an_effect_on_another(
    service: Service,
) -> None:
    exchange, relay = service

    async def calls() -> None:
        contexts = [Context() for _ in range(OF_MEMBER)]
        waiting = [asyncio.create_task(made(exchange, "Relay", PULL, one)) for one in contexts]
        await settle()
        assert relay.calls == OF_MEMBER
        with pytest.raises(Aborted) as refused:
            await made(exchange, "Relay", PULL, Context())
        assert refused.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        other = asyncio.create_task(made(exchange, "Relay", PULL, Context("SE")))
        relay.go.set()
        assert (await other).status == 200
        await asyncio.gather(*waiting)

    asyncio.run(calls())


def test_a_call_counts_until_its_reply_has_arrived(service: Service) -> None:
    exchange, _ = service

    async def calls() -> None:
        small = exchange_pb2.FetchRequest(path="a")
        contexts = [Context() for _ in range(OF_MEMBER)]
        for context in contexts:
            await made(exchange, "Fetch", small, context)
        with pytest.raises(Aborted):
            await made(exchange, "Fetch", small, Context())
        contexts[0].finish()
        assert (await made(exchange, "Fetch", small, Context())).content == b"a"

    asyncio.run(calls())


def test_an_invitation_has_fewer_calls_than_a_member(service: Service) -> None:
    exchange, _ = service

    async def calls() -> None:
        guests = [Context(role=Role.ENROLMENT) for _ in range(OF_GUEST + 1)]
        *held, refused = [asyncio.create_task(exchange.Enrol(never(), one)) for one in guests]
        with pytest.raises(Aborted, match="already in progress"):
            await refused
        assert not any(task.done() for task in held)
        for task in held:
            task.cancel()

    asyncio.run(calls())


@pytest.mark.parametrize("call", ["Fetch", "Submit"])
def test_a_request_larger_than_its_call_allows_is_refused(service: Service, call: str) -> None:
    filler = b"x" * (LARGEST_REQUEST[call] + 1)
    kind = exchange_pb2.SubmitRequest.COUNTRY_BUNDLE
    requests: dict[str, Message] = {
        "Fetch": exchange_pb2.FetchRequest(path=filler.decode()),
        "Submit": exchange_pb2.SubmitRequest(kind=kind, content=filler),
    }
    for _ in range(OF_MEMBER + 1):  # a refused call frees its place
        with pytest.raises(Aborted) as refused:
            asyncio.run(made(service[0], call, requests[call], Context()))
        assert refused.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert str(LARGEST_REQUEST[call]) in refused.value.details


def test_the_size_is_decided_before_a_second_part_is_read(service: Service) -> None:
    read = []

    async def huge() -> AsyncIterator[exchange_pb2.RequestPart]:
        for number in range(3):
            read.append(number)
            yield exchange_pb2.RequestPart(size=2**40, content=b"x" * 2**18)

    with pytest.raises(Aborted, match="at most"):
        asyncio.run(service[0].Relay(huge(), Context()))
    assert read == [0]


@pytest.mark.parametrize("call", sorted(CALL_SECONDS))
def test_a_request_that_never_arrives_ends_the_call(
    service: Service, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(service_module, "PART_SECONDS", 0.01)
    with pytest.raises(Aborted, match="no part of the request") as refused:
        asyncio.run(getattr(service[0], call)(never(), Context()))
    assert refused.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_call_that_takes_too_long_ends(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CALL_SECONDS, "Relay", 0.01)
    with pytest.raises(Aborted, match="took longer") as refused:
        asyncio.run(made(service[0], "Relay", PULL, Context()))
    assert refused.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_reply_that_nobody_takes_ends_its_connection(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CALL_SECONDS, "Fetch", 0.01)
    monkeypatch.setattr(service_module, "ENDING_SECONDS", 0.0)
    exchange, _ = service

    async def calls() -> None:
        ended: asyncio.Queue[str] = asyncio.Queue()
        port = SimpleNamespace(end=ended.put_nowait, address=lambda _: "")
        exchange.serve_at(port)  # type: ignore[arg-type]
        taken, left = Context(), Context()
        for context in (taken, left):
            await made(exchange, "Fetch", exchange_pb2.FetchRequest(path="a"), context)
        taken.finish()
        assert await ended.get() == "unix-abstract:x"
        assert ended.empty()

    asyncio.run(calls())


@pytest.mark.parametrize("junk", [b"", b"\xff" * 40])
def test_a_request_that_cannot_be_read_is_refused(service: Service, junk: bytes) -> None:
    parts = [exchange_pb2.RequestPart(size=len(junk), content=junk)]
    with pytest.raises(Aborted, match="cannot be read") as refused:
        asyncio.run(service[0].Relay(arriving(parts), Context()))
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT


class Called(Context):
    """A call that shows a certificate, and states this session."""

    def __init__(self, session: bytes) -> None:
        super().__init__()
        self._session = session

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def invocation_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return ((SESSION_KEY, self._session),)


def test_a_call_and_its_connection_count_for_the_session_that_it_states() -> None:
    party, proven = Context().party, list[Claim]()

    def peer(*_: Any, disputed: Callable[[str], bool]) -> Peer:
        assert (disputed("PL"), disputed("SE")) == (True, False)
        return party

    sessions = {b"acts": ACTS, b"before": Claim(Rank.FORMER, 3), b"copy": Claim(Rank.OTHER)}
    exchange = ExchangeService(
        register=SimpleNamespace(on_revoked=lambda _: None, peer=peer),
        enrolments=None,  # type: ignore[arg-type]
        documents=Published(),
        relay=SimpleNamespace(  # type: ignore[arg-type]
            disputes=lambda: ("PL",),
            claim=lambda country, session, address: (
                sessions[session] if (country, address) == ("PL", "10.0.0.1") else None
            ),
        ),
        clock=lambda: NOW,
        on_refusal=lambda *_: None,
    )
    exchange.serve_at(
        SimpleNamespace(  # type: ignore[arg-type]
            address=lambda _: "10.0.0.1", prove=lambda _, __, claim: proven.append(claim)
        )
    )

    async def calls() -> None:
        for session in sessions:
            await made(exchange, "Fetch", exchange_pb2.FetchRequest(path="a"), Called(session))
        held = [each.holder.claim for call in exchange._limits._calls.values() for each in call]
        assert set(held) == set(sessions.values())

    asyncio.run(calls())
    assert proven == list(sessions.values())


def test_a_request_of_a_session_that_does_not_act_is_small(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange, relay = service
    monkeypatch.setattr(relay, "claim", lambda *_: Claim(Rank.OTHER))
    part = exchange_pb2.RequestPart(size=LITTLE_BYTES + 1, content=bytes(PART_BYTES))
    with pytest.raises(Aborted, match="does not act for the node") as refused:
        asyncio.run(exchange.Relay(arriving([part]), Context()))
    assert refused.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_what_has_arrived_of_a_request_is_counted_until_it_is_whole(service: Service) -> None:
    exchange, relay = service
    request = exchange_pb2.RelayRequest(method="PushMessages", object=bytes(3 * PART_BYTES))

    async def calls() -> None:
        (*first, last), context = sent_as("Relay", request), Context()
        more: asyncio.Queue[Message] = asyncio.Queue()

        async def parts() -> AsyncIterator[Message]:
            for part in first:
                yield part
            yield await more.get()

        task = asyncio.create_task(exchange.Relay(parts(), context))  # type: ignore[arg-type]
        await settle()
        ((call,),) = exchange._limits._calls.values()
        assert (call.reads, call.arrived) == (True, len(first) * PART_BYTES)
        more.put_nowait(last)
        await settle()
        assert (call.reads, call.arrived) == (False, request.ByteSize())
        relay.go.set()
        await task

    asyncio.run(calls())
