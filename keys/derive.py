"""Hashing and key derivation, domain-separated by a label.

Fields are length-prefixed, so two different lists of fields never give the same input.
"""

import hashlib
import struct

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

HASH_BYTES = 32
_LENGTH = struct.Struct(">Q").pack


def frame(*fields: bytes) -> bytes:
    """Return the fields, each after its length in eight big-endian bytes."""
    return b"".join([_LENGTH(len(field)) + field for field in fields])


def labelled_hash(label: str, *fields: bytes) -> bytes:
    """Return the 32-byte SHA-256 digest of the framed fields under a label."""
    *first, last = (label.encode(), *fields)
    state = hashlib.sha256(frame(*first) + _LENGTH(len(last)))
    state.update(last)  # separately: it may be megabytes, which `frame` would copy twice
    return state.digest()


def derive_key(secret: bytes, label: str, *fields: bytes, length: int = HASH_BYTES) -> bytes:
    """Return `length` bytes from HKDF-SHA-256 (RFC 5869) of `secret`, bound to label and fields."""
    return HKDF(SHA256(), length, salt=None, info=frame(label.encode(), *fields)).derive(secret)
