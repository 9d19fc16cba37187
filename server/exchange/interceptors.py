"""Counts refused calls, keeps the text of faults here, and states the time with each answer."""

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import grpc

from protocols.wire.exchange_clock import TIME_KEY

REASONS = tuple(code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK)

UNEXPECTED = "the exchange could not do this; its own log says why"

_log = logging.getLogger("pratique.coordinator")


class RefusalCounter(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Counts every call that the exchange or its service refused.

    gRPC would send the text of an unexpected fault to the caller; it may name a local file.
    """

    def __init__(self, count: Callable[[str, str], None]) -> None:
        """`count` takes the call and the status code."""
        self._count = count

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        """Return the handler, wrapped so that refusals are counted."""
        handler = await continuation(details)
        if handler is None or handler.stream_unary is None:
            return handler
        call = details.method.rsplit("/", 1)[-1]

        async def counted(requests: Any, context: Any) -> Any:
            try:
                return await handler.stream_unary(requests, context)
            except grpc.aio.AbortError:
                self._count(call, str(getattr(context.code(), "name", "")))
                raise
            except Exception:
                _log.exception("a call failed")
                self._count(call, grpc.StatusCode.INTERNAL.name)
                await context.abort(grpc.StatusCode.INTERNAL, UNEXPECTED)
                raise

        return grpc.stream_unary_rpc_method_handler(
            counted, handler.request_deserializer, handler.response_serializer
        )


class TimeStatement(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """States the exchange's time in the trailing metadata of each call."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        """`clock` is this machine's."""
        self._clock = clock

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        """Return the handler, wrapped so that the time is stated."""
        handler = await continuation(details)
        if handler is None or handler.stream_unary is None:
            return handler

        def state(context: Any) -> None:
            context.set_trailing_metadata(((TIME_KEY, self._clock().isoformat()),))

        async def timed(requests: Any, context: Any) -> Any:
            state(context)  # for a call that is refused
            reply = await handler.stream_unary(requests, context)
            state(context)
            return reply

        return grpc.stream_unary_rpc_method_handler(
            timed, handler.request_deserializer, handler.response_serializer
        )
