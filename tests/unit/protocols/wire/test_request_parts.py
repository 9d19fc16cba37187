"""Requests in parts: joined exactly, or refused before more is read."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest

from protocols.errors import ProtocolFault
from protocols.proto.exchange_pb2 import RelayRequest, RequestPart
from protocols.wire.request_parts import LARGEST_PART, PART_BYTES, joined, parts_of


async def arriving(parts: Iterable[RequestPart]) -> AsyncIterator[RequestPart]:
    for part in parts:
        yield part


async def admit(_: int) -> None:
    return None


def whole(parts: Iterable[RequestPart]) -> bytes:
    return asyncio.run(joined(arriving(parts), admit))


@pytest.mark.parametrize("size", [1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES])
def test_a_request_arrives_as_it_was(size: int) -> None:
    request = bytes(index % 251 for index in range(size))
    parts = list(parts_of(request))
    assert whole(parts) == request
    assert max(part.ByteSize() for part in parts) <= LARGEST_PART
    assert [part.size for part in parts] == [size] + [0] * (len(parts) - 1)


WRONG = {
    "nothing": [],
    "no size": [RequestPart(content=b"abc")],
    "too short": [RequestPart(size=4, content=b"abc")],
    "too long": [RequestPart(size=2, content=b"abc")],
    "ends early": [RequestPart(size=2 * PART_BYTES, content=bytes(PART_BYTES))],
    "an empty part": [RequestPart(size=2 * PART_BYTES, content=bytes(PART_BYTES)), RequestPart()],
    "many tiny parts": [RequestPart(size=PART_BYTES + 9, content=b"a")] * 9,
}


@pytest.mark.parametrize("parts", WRONG.values(), ids=WRONG.keys())
def test_parts_of_another_size_are_refused(parts: list[RequestPart]) -> None:
    with pytest.raises(ProtocolFault, match="cannot be read"):
        whole(parts)


def test_a_request_that_an_earlier_program_sends_whole_is_named_as_such() -> None:
    earlier = RelayRequest(method="PullMessages", body=b"\x0a\x02\x08\x01", object=b"x" * 99)
    part = RequestPart.FromString(earlier.SerializeToString())
    with pytest.raises(ProtocolFault) as caught:
        whole([part])
    assert "another version" in caught.value.why
    assert "version" in caught.value.fix
