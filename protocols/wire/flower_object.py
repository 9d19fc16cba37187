"""The one object of a Flower message, byte by byte: a ConfigRecord with a frame and a nonce.

Both sides write this object and accept no other. Nothing is parsed: for a given size, there is one
place where the frame can be, and all bytes around it are known. So an object from outside costs no
more memory than it has bytes, and Flower's own decoder never sees it.

The form is Flower's: a head (kind, children, length of the body), a zero byte, and a serialised
`flwr.proto.ConfigRecord`. A test compares it with what Flower writes.
"""

import hashlib

from protocols.wire.flower_frame import FRAME, MAX_FRAME, NONCE, NONCE_BYTES

OVERHEAD = 96
"""At most this many bytes of an object are not its frame."""
_MORE = 0x80
"""In a byte of a length: more bytes follow, each of 7 bits."""
_DELIMITED = 2
"""Protobuf's wire type of fields with a length."""
_ITEM, _KEY, _VALUE, _BYTES = 1, 1, 2, 6
"""Field numbers: of an item in a ConfigRecord, of its key and value, of bytes in a value."""


def pack_frame(frame: bytes, nonce: bytes) -> bytes:
    """Return the object that holds a frame; `nonce` has NONCE_BYTES."""
    return b"".join((_before(len(frame)), frame, _between(), nonce))


def unpack_frame(content: bytes) -> bytes | None:
    """Return the frame in an object; None if the object is of any other form."""
    place = _place(content)
    return None if place is None else content[place]


def frame_size(content: bytes) -> int | None:
    """Return the size of the frame in an object; None if the object is of any other form."""
    place = _place(content)
    return None if place is None else place.stop - place.start


def object_name(content: bytes) -> str:
    """Return the name by which Flower knows an object: its SHA-256 hash."""
    return hashlib.sha256(content).hexdigest()


def _place(content: bytes) -> slice | None:
    end = len(content) - NONCE_BYTES - len(_between())
    if not content.startswith(_between(), max(0, end)):
        return None
    for size in _possible_sizes(end):
        before = _before(size)
        if len(before) + size == end and content.startswith(before):
            return slice(len(before), end)
    return None


def _possible_sizes(end: int) -> range:
    """Return the sizes that a frame which ends at `end` may have."""
    return range(max(0, end - OVERHEAD), min(end, MAX_FRAME) + 1)


def _before(size: int) -> bytes:
    """Return the bytes before a frame of this size."""
    value = _field(_BYTES, size)
    item = _key(FRAME) + _field(_VALUE, len(value) + size) + value
    start = _field(_ITEM, len(item) + size) + item
    body = len(start) + size + len(_between()) + NONCE_BYTES
    return b"ConfigRecord  %d\0%b" % (body, start)


def _between() -> bytes:
    """Return the bytes between the frame and the nonce."""
    value = _field(_BYTES, NONCE_BYTES)
    item = _key(NONCE) + _field(_VALUE, len(value) + NONCE_BYTES) + value
    return _field(_ITEM, len(item) + NONCE_BYTES) + item


def _key(name: str) -> bytes:
    return _field(_KEY, len(name)) + name.encode()


def _field(number: int, length: int) -> bytes:
    """Return the tag and the length of a field, as protobuf writes them."""
    encoded = bytearray((number << 3 | _DELIMITED,))
    while length >= _MORE:
        encoded.append(length % _MORE | _MORE)
        length //= _MORE
    encoded.append(length)
    return bytes(encoded)
