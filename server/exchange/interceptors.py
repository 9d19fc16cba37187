"""Counts refused calls, keeps the text of faults here, and states the time with each answer."""

import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import grpc

from protocols.wire.exchange_clock import TIME_KEY

REASONS = tuple(code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK)

UNEXPECTED = "the exchange could not do this; its own log says why"

_log = logging.getLogger("pratique.coordinator")


Call = Callable[[Any, Any], Awaitable[Any]]
"""A call of the exchange: takes the parts of its request and its context."""


class _Wrapper(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """An interceptor that puts a function of its own around each call."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        """Return the handler of a call, wrapped."""
        handler = await continuation(details)
        if handler is None or handler.stream_unary is None:
            return handler
        wrapped = self._wrapped(handler.stream_unary, details.method.rsplit("/", 1)[-1])
        return grpc.stream_unary_rpc_method_handler(
            wrapped, handler.request_deserializer, handler.response_serializer
        )

    @abstractmethod
    def _wrapped(self, call: Call, name: str) -> Call:
        """Return the function that is called in place of `call`."""


class RefusalCounter(_Wrapper):
    """Counts every call that the exchange or its service refused.

    gRPC would send the text of an unexpected fault to the caller; it may name a local file.
    """

    def __init__(self, count: Callable[[str, str], None]) -> None:
        """`count` takes the call and the status code."""
        self._count = count

    def _wrapped(self, call: Call, name: str) -> Call:
        async def counted(requests: Any, context: Any) -> Any:
            try:
                return await call(requests, context)
            except grpc.aio.AbortError:
                self._count(name, str(getattr(context.code(), "name", "")))
                raise
            except Exception:
                _log.exception("a call met a fault")
                self._count(name, grpc.StatusCode.INTERNAL.name)
                await context.abort(grpc.StatusCode.INTERNAL, UNEXPECTED)
                raise

        return counted


class TimeStatement(_Wrapper):
    """States the exchange's time in the trailing metadata of each call."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        """`clock` is this machine's."""
        self._clock = clock

    def _wrapped(self, call: Call, name: str) -> Call:  # noqa: ARG002 (every call is timed)
        def state(context: Any) -> None:
            context.set_trailing_metadata(((TIME_KEY, self._clock().isoformat()),))

        async def timed(requests: Any, context: Any) -> Any:
            state(context)  # for a call that is refused
            reply = await call(requests, context)
            state(context)
            return reply

        return timed
