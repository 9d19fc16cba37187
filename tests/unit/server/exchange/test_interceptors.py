"""Refused calls are counted by call and code; answered ones, and other kinds, are not."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from server.exchange.interceptors import REASONS, RefusalCounter

CALL = SimpleNamespace(method="/pratique.Exchange/Fetch")


class Context:
    def __init__(self, code: grpc.StatusCode | None) -> None:
        self._code = code

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


def test_calls_that_are_unknown_or_of_another_kind_are_not_wrapped() -> None:
    assert counted_call(None)[0] is None
    stream = grpc.unary_stream_rpc_method_handler(answer)
    assert counted_call(stream)[0] is stream


def test_success_is_not_among_the_counted_codes() -> None:
    assert "OK" not in REASONS
