"""Requests in parts: a large request crosses in pieces, so that its reader can stop at any time.

The first part states the size of the whole request. The exchange decides by this size, before it
reads the rest, and keeps no more of a request than the call may send.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from protocols.errors import ProtocolFault
from protocols.proto.exchange_pb2 import RequestPart

PART_BYTES = 256 * 2**10
"""Size of a part, in bytes: small beside a request, large beside the cost of a message."""
LARGEST_PART = PART_BYTES + 2**10
"""The largest message with a part in it, in bytes."""


def parts_of(request: bytes) -> Iterator[RequestPart]:
    """Yield the parts of a serialised request; the first one states its size in bytes."""
    view = memoryview(request)
    yield RequestPart(size=len(request), content=bytes(view[:PART_BYTES]))
    for start in range(PART_BYTES, len(request), PART_BYTES):
        yield RequestPart(content=bytes(view[start : start + PART_BYTES]))


async def joined(
    parts: AsyncIterator[RequestPart], admit: Callable[[int], Awaitable[None]]
) -> bytes:
    """Return the whole request.

    `admit` takes its stated size in bytes before the second part is read; it may wait, or raise.
    Raises ProtocolFault if the parts do not have that size together, or are not parts.
    """
    first = await anext(parts, RequestPart())
    if not first.size:
        raise ProtocolFault(
            "The request cannot be read",
            why="it does not state its size: it was sent by a program of another version",
            fix="install the version that the coordinator uses",
        )
    await admit(first.size)
    request = bytearray()
    part: RequestPart | None = first
    while part is not None and len(part.content) == min(PART_BYTES, first.size - len(request)):
        request += part.content
        if len(request) == first.size:
            return bytes(request)
        part = await anext(parts, None)
    raise ProtocolFault(
        "The request cannot be read",
        why=f"it states {first.size} bytes in parts of {PART_BYTES}, and ended after "
        f"{len(request)} or has a part of another size",
        fix="send it again",
    )
