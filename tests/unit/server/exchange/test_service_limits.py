"""Limits on the number and the size of one party's calls to the exchange."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from keys.certificates import Peer, Role
from protocols.proto import exchange_pb2
from server.exchange.relay_session import CallReply
from server.exchange.service import LARGEST_REQUEST, MAX_CALLS_OF_PARTY, ExchangeService

NOW = datetime(2026, 11, 1, tzinfo=UTC)
Service = tuple[ExchangeService, "SlowRelay"]


class Aborted(Exception):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self.code, self.details = code, details


class Context:
    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Aborted(code, details)


class SlowRelay:
    def __init__(self) -> None:
        self.go, self.calls = asyncio.Event(), 0

    async def call(self, *_: Any) -> CallReply:
        self.calls += 1
        await self.go.wait()
        return CallReply(200, b"")


class Published:
    def fetch(self, path: str) -> bytes | None:
        return path.encode()

    def submit(self, *_: Any) -> None:
        return None


def service(monkeypatch: pytest.MonkeyPatch, country: Callable[[], str] = lambda: "PL") -> Service:
    async def peer(*_: Any) -> Peer:
        return Peer("north-sea", country(), Role.NODE, 1, NOW + timedelta(days=1))

    relay = SlowRelay()
    exchange = ExchangeService(
        register=SimpleNamespace(on_revoked=lambda _: None),
        enrolments=None,  # type: ignore[arg-type]
        documents=Published(),
        relay=relay,  # type: ignore[arg-type]
        clock=lambda: NOW,
        on_refusal=lambda *_: None,
    )
    monkeypatch.setattr(exchange, "_peer", peer)
    return exchange, relay


def test_calls_of_one_party_are_limited_without_an_effect_on_another_party(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def calls() -> None:
        countries = ["PL"]
        made, relay = service(monkeypatch, lambda: countries[-1])
        request = exchange_pb2.RelayRequest(method="PullMessages")
        waiting = [
            asyncio.create_task(made.Relay(request, Context())) for _ in range(MAX_CALLS_OF_PARTY)
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(Aborted) as refused:
            await made.Relay(request, Context())
        assert refused.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        countries.append("DE")
        other = asyncio.create_task(made.Relay(request, Context()))
        await asyncio.sleep(0)
        relay.go.set()
        assert (await other).status == 200
        await asyncio.gather(*waiting)
        countries.append("PL")
        assert (await made.Relay(request, Context())).status == 200

    asyncio.run(calls())


def test_a_refused_call_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async def calls() -> None:
        made, _ = service(monkeypatch)
        large = exchange_pb2.FetchRequest(path="x" * LARGEST_REQUEST["Fetch"])
        for _ in range(MAX_CALLS_OF_PARTY + 1):
            with pytest.raises(Aborted) as refused:
                await made.Fetch(large, Context())
            assert refused.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        small = await made.Fetch(exchange_pb2.FetchRequest(path="a"), Context())
        assert small.content == b"a"

    asyncio.run(calls())


@pytest.mark.parametrize("call", ["Fetch", "Submit"])
def test_a_request_larger_than_its_call_allows_is_refused(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    filler = b"x" * (LARGEST_REQUEST[call] + 1)
    requests = {
        "Fetch": exchange_pb2.FetchRequest(path=filler.decode()),
        "Submit": exchange_pb2.SubmitRequest(
            kind=exchange_pb2.SubmitRequest.COUNTRY_BUNDLE, content=filler
        ),
    }

    async def calls() -> None:
        made, _ = service(monkeypatch)
        with pytest.raises(Aborted) as refused:
            await getattr(made, call)(requests[call], Context())
        assert str(LARGEST_REQUEST[call]) in refused.value.details

    asyncio.run(calls())
