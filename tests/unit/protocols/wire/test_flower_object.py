"""The one object of a message: as Flower writes it, and read from no other bytes."""

import hashlib

import pytest
from flwr.app import ConfigRecord
from flwr.supercore.inflatable.inflatable_object import get_object_id
from hypothesis import given
from hypothesis import strategies as st

from protocols.wire import flower_object
from protocols.wire.flower_frame import FRAME, MAX_FRAME, NONCE, NONCE_BYTES
from protocols.wire.flower_object import (
    OVERHEAD,
    frame_size,
    object_name,
    pack_frame,
    unpack_frame,
)

NONCE_OF_ONES = b"\x01" * NONCE_BYTES
SIZES = (0, 1, 100, 115, 116, 117, 118, 119, 120, 127, 128, 129, 16_370, 16_384, 2_097_152)


@pytest.mark.parametrize("size", SIZES)
def test_the_object_is_the_one_that_flower_writes(size: int) -> None:
    """Lengths grow by a byte at 128, 16,384 and 2,097,152."""
    frame = bytes(range(256)) * (size // 256) + bytes(size % 256)
    packed = pack_frame(frame, NONCE_OF_ONES)
    assert packed == ConfigRecord({FRAME: frame, NONCE: NONCE_OF_ONES}).deflate()
    assert object_name(packed) == get_object_id(packed) == hashlib.sha256(packed).hexdigest()
    assert len(packed) - size <= OVERHEAD
    assert (unpack_frame(packed), frame_size(packed)) == (frame, size)


@given(st.binary(max_size=200), st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES))
def test_every_frame_and_nonce_is_read_back(frame: bytes, nonce: bytes) -> None:
    assert unpack_frame(pack_frame(frame, nonce)) == frame


@given(st.binary(max_size=200))
def test_no_other_bytes_are_an_object(content: bytes) -> None:
    assert unpack_frame(content) is None
    assert frame_size(content) is None


@given(st.binary(max_size=150), st.data())
def test_an_object_with_a_changed_byte_outside_frame_and_nonce_is_none(
    frame: bytes, data: st.DataObject
) -> None:
    packed = bytearray(pack_frame(frame, NONCE_OF_ONES))
    start = packed.index(b"\0") + 1
    place = data.draw(st.integers(0, start - 1))
    packed[place] ^= data.draw(st.integers(1, 255))
    assert unpack_frame(bytes(packed)) is None


@pytest.mark.parametrize(
    "record",
    [
        ConfigRecord({FRAME: b"x"}),
        ConfigRecord({NONCE: NONCE_OF_ONES, FRAME: b"x"}),
        ConfigRecord({FRAME: b"x", NONCE: NONCE_OF_ONES, "more": b""}),
        ConfigRecord({FRAME: b"x", NONCE: NONCE_OF_ONES[1:]}),
        ConfigRecord({FRAME: "text", NONCE: NONCE_OF_ONES}),
        ConfigRecord({FRAME: [b"x"], NONCE: NONCE_OF_ONES}),
        ConfigRecord({f"a{i}": 1 for i in range(1000)}),
    ],
)
def test_another_record_of_flower_is_no_object(record: ConfigRecord) -> None:
    assert unpack_frame(record.deflate()) is None


def test_an_object_that_names_children_is_none() -> None:
    packed = pack_frame(b"x", NONCE_OF_ONES)
    assert unpack_frame(packed.replace(b"  ", b" " + b"0" * 64 + b" ", 1)) is None


def test_a_frame_over_the_limit_is_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    assert vars(flower_object)["MAX_FRAME"] == MAX_FRAME
    monkeypatch.setattr(flower_object, "MAX_FRAME", 10)
    assert unpack_frame(pack_frame(bytes(10), NONCE_OF_ONES)) == bytes(10)
    assert unpack_frame(pack_frame(bytes(11), NONCE_OF_ONES)) is None
