"""Refused calls are counted by call and code; answered ones, and other kinds, are not."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from protocols.wire.exchange_clock import TIME_KEY
from server.exchange.interceptors import REASONS, UNEXPECTED, RefusalCounter, TimeStatement

CALL = SimpleNamespace(method="/pratique.Exchange/Fetch")


class Context:
    def __init__(self, code: grpc.StatusCode | None) -> None:
        self._code = code
        self.aborted: list[tuple[grpc.StatusCode, str]] = []

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.aborted.append((code, details))
        raise grpc.aio.AbortError

    def code(self) -> grpc.StatusCode | None:
        return self._code


async def answer(request: str, context: Context) -> str:
    if context.code() is not None:
        raise grpc.aio.AbortError
    return request.upper()


def counted_call(handler: Any) -> tuple[Any, list[tuple[str, str]]]:
    """Return the handler with the counting around it, and what is counted."""
    counts: list[tuple[str, str]] = []

    async def continuation(_: Any) -> Any:
        return handler

    counter = RefusalCounter(lambda call, reason: counts.append((call, reason)))
    intercept: Callable[..., Awaitable[Any]] = counter.intercept_service
    return asyncio.run(intercept(continuation, CALL)), counts  # type: ignore[arg-type]


def handler() -> Any:
    return grpc.stream_unary_rpc_method_handler(answer, str.encode, bytes.decode)


def test_an_answered_call_is_passed_on_as_it_is() -> None:
    wrapped, counts = counted_call(handler())
    assert asyncio.run(wrapped.stream_unary("a", Context(None))) == "A"
    assert counts == []
    assert wrapped.request_deserializer == str.encode
    assert wrapped.response_serializer == bytes.decode


@pytest.mark.parametrize("code", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND])
def test_a_refused_call_is_counted_and_stays_refused(code: grpc.StatusCode) -> None:
    wrapped, counts = counted_call(handler())
    with pytest.raises(grpc.aio.AbortError):
        asyncio.run(wrapped.stream_unary("a", Context(code)))
    assert counts == [("Fetch", code.name)]
    assert code.name in REASONS


def test_a_refusal_without_a_code_is_counted_without_one() -> None:
    async def aborts(request: str, context: Context) -> str:
        raise grpc.aio.AbortError

    aborting = grpc.stream_unary_rpc_method_handler(aborts, str.encode, bytes.decode)
    wrapped, counts = counted_call(aborting)
    with pytest.raises(grpc.aio.AbortError):
        asyncio.run(wrapped.stream_unary("a", Context(None)))
    assert counts == [("Fetch", "")]


def test_an_unexpected_fault_is_logged_and_its_text_stays_here(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fails(request: str, context: Context) -> str:
        raise OSError(28, "No space left on device", "/srv/coordinator/state.db")

    failing = grpc.stream_unary_rpc_method_handler(fails, str.encode, bytes.decode)
    wrapped, counts = counted_call(failing)
    context = Context(None)
    with pytest.raises(grpc.aio.AbortError):
        asyncio.run(wrapped.stream_unary("a", context))
    assert counts == [("Fetch", "INTERNAL")]
    assert context.aborted == [(grpc.StatusCode.INTERNAL, UNEXPECTED)]
    assert "/srv/coordinator" in caplog.text


def test_calls_that_are_unknown_or_of_another_kind_are_not_wrapped() -> None:
    assert counted_call(None)[0] is None
    stream = grpc.unary_stream_rpc_method_handler(answer)
    assert counted_call(stream)[0] is stream


def test_success_is_not_among_the_counted_codes() -> None:
    assert "OK" not in REASONS


class TimedContext(Context):
    stated: tuple[tuple[str, str], ...] = ()

    def set_trailing_metadata(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self.stated = metadata


@pytest.mark.parametrize("code", [None, grpc.StatusCode.UNAUTHENTICATED])
def test_the_time_is_stated_at_the_end_of_each_call(code: grpc.StatusCode | None) -> None:
    times = iter(datetime(2026, 11, 30, 12, minute, tzinfo=UTC) for minute in range(2))

    async def continuation(_: Any) -> Any:
        return handler()

    statement: Any = TimeStatement(lambda: next(times))
    wrapped = asyncio.run(statement.intercept_service(continuation, CALL))
    context = TimedContext(code)
    with suppress(grpc.aio.AbortError):
        assert asyncio.run(wrapped.stream_unary("a", context)) == "A"
    minute = 0 if code else 1
    assert context.stated == ((TIME_KEY, f"2026-11-30T12:0{minute}:00+00:00"),)
    assert wrapped.response_serializer == bytes.decode
