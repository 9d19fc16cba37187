"""Counts the refused calls of the exchange, for the metrics."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

REASONS = tuple(code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK)


class RefusalCounter(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Counts every call that the exchange or its service refused."""

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

        return grpc.stream_unary_rpc_method_handler(
            counted, handler.request_deserializer, handler.response_serializer
        )
