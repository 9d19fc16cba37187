"""Signing identities: Ed25519 keys (RFC 8032), their text form and their spoken fingerprint.

A signature covers bytes and not their purpose. So callers sign a `labelled_hash`, and no signature
can be used for another purpose.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from keys.derive import labelled_hash
from keys.errors import KeyFault

KEY_BYTES = 32
TEXT_PATTERN = re.compile(r"ed25519:[A-Za-z0-9+/]{43}=")
"""How a public key is written in documents; `VerifyKey.from_text` also checks the key."""

FINGERPRINT_LABEL = "pratique/fingerprint/v1"
FINGERPRINT_BYTES = 15
FINGERPRINT_GROUP = 4

FIELD_PRIME = 2**255 - 19
_ORDER_8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
SMALL_ORDER_Y = frozenset({0, 1, FIELD_PRIME - 1, _ORDER_8, FIELD_PRIME - _ORDER_8})
"""The y coordinates of the eight points of small order on edwards25519: with such a key one
signature verifies for many messages (Chalkias, Garillot, Nikolaenko 2020, table 1)."""


@dataclass(frozen=True)
class VerifyKey:
    """A public key: 32 raw bytes, canonical and not of small order. Equal keys are equal values.

    Raises KeyFault if the bytes are not such a key.
    """

    raw: bytes

    def __post_init__(self) -> None:
        y = int.from_bytes(self.raw, "little") & (2**255 - 1)
        if len(self.raw) != KEY_BYTES or y >= FIELD_PRIME or y in SMALL_ORDER_Y:
            raise _not_a_key()

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the key written as `ed25519:<base64>`. Raises KeyFault for any other form."""
        if not TEXT_PATTERN.fullmatch(text):
            raise _not_a_key()
        key = cls(binascii.a2b_base64(text.removeprefix("ed25519:")))
        if key.to_text() != text:  # the last digit has unused bits; each key has one text only
            raise _not_a_key()
        return key

    def to_text(self) -> str:
        """Return `ed25519:` and the standard base64 of the raw key."""
        return "ed25519:" + base64.b64encode(self.raw).decode()

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check that this key signed the message. Raises KeyFault if not."""
        try:
            self._public_key.verify(signature, message)
        except (InvalidSignature, ValueError):
            raise not_valid(self.fingerprint) from None

    @cached_property
    def _public_key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.raw)

    @property
    def fingerprint(self) -> str:
        """`SHA256:` and six groups of four letters or digits (120 bits), to read aloud."""
        return spoken_fingerprint(self.raw)


class SigningKey:
    """A private signing key. Printing or comparing it does not reveal it."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self._public = VerifyKey(private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> Self:
        """Return a new key from the operating system's generator."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Return the key whose 32-byte seed is `raw`. Raises KeyFault for another length."""
        if len(raw) != KEY_BYTES:
            raise _not_a_key()
        return cls(Ed25519PrivateKey.from_private_bytes(raw))

    def to_bytes(self) -> bytes:
        """Return the 32-byte seed: a secret, for the key store only."""
        return self._private.private_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature over the message; it is the same each time."""
        return self._private.sign(message)

    @property
    def public(self) -> VerifyKey:
        """The key that verifies what this one signs."""
        return self._public


def spoken_fingerprint(raw: bytes) -> str:
    """Return the fingerprint of a public key's raw bytes."""
    return "SHA256:" + spoken(labelled_hash(FINGERPRINT_LABEL, raw))


def spoken(digest: bytes) -> str:
    """Return the first 120 bits of a digest in base32, in six groups, to read aloud."""
    letters = base64.b32encode(digest[:FINGERPRINT_BYTES]).decode().lower()
    starts = range(0, len(letters), FINGERPRINT_GROUP)
    return "-".join(letters[start : start + FINGERPRINT_GROUP] for start in starts)


def not_valid(fingerprint: str) -> KeyFault:
    """Return the error for a signature that the key with this fingerprint did not make."""
    return KeyFault(
        "A signature is not valid",
        why=f"the key {fingerprint} did not sign the data that it came with",
    )


def _not_a_key() -> KeyFault:
    return KeyFault(
        "This is not an Ed25519 key",
        why="a key is 32 bytes; in text, ed25519: and 44 base64 characters",
        fix="copy the whole key again from where it was shown",
    )
