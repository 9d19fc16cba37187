"""Identities that sign with both Ed25519 and ML-DSA-65 (FIPS 204): both signatures must verify.

A forger must break both algorithms. Both halves sign one hash that covers both public keys. So one
half's signature is not valid alone, together with another key's half, or as a signature of the
Ed25519 key by itself. ML-DSA signs with fresh randomness: two signatures of one message differ.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from keys.derive import labelled_hash
from keys.errors import KeyFault
from keys.identity import KEY_BYTES, SigningKey, VerifyKey, not_valid, spoken_fingerprint

ED25519_SIGNATURE_BYTES = 64
MLDSA_PUBLIC_BYTES = 1952
"""Of ML-DSA-65 (FIPS 204, table 2)."""
MLDSA_SEED_BYTES = 32
PUBLIC_BYTES = KEY_BYTES + MLDSA_PUBLIC_BYTES
SECRET_BYTES = KEY_BYTES + MLDSA_SEED_BYTES
PREFIX = "ed25519+mldsa65:"
COMPOSITE_TEXT = re.compile(r"ed25519\+mldsa65:[A-Za-z0-9+/]{2646}==")
"""How a composite key is written; `CompositeVerifyKey.from_text` also checks the key."""
COMPOSITE_LABEL = "pratique/composite-signature/v1"


@dataclass(frozen=True)
class CompositeVerifyKey:
    """A composite public key: 32 bytes of Ed25519, then 1952 of ML-DSA-65.

    Raises KeyFault if the bytes are not such a key.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != PUBLIC_BYTES:
            raise _not_composite()
        VerifyKey(self.raw[:KEY_BYTES])

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the key written as `ed25519+mldsa65:<base64>`. Raises KeyFault for all else."""
        if not COMPOSITE_TEXT.fullmatch(text):
            raise _not_composite()
        key = cls(binascii.a2b_base64(text.removeprefix(PREFIX)))
        if key.to_text() != text:  # the last digit has unused bits; each key has one text only
            raise _not_composite()
        return key

    def to_text(self) -> str:
        """Return `ed25519+mldsa65:` and the standard base64 of the raw key."""
        return PREFIX + base64.b64encode(self.raw).decode()

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check that both halves of this key signed the message. Raises KeyFault if not."""
        signed = _bound(self.raw, message)
        try:
            self.ed25519.verify(signature[:ED25519_SIGNATURE_BYTES], signed)
            self._mldsa.verify(signature[ED25519_SIGNATURE_BYTES:], signed)
        except (KeyFault, InvalidSignature, ValueError):
            raise not_valid(self.fingerprint) from None

    @cached_property
    def ed25519(self) -> VerifyKey:
        """The Ed25519 half, for agreements that require Ed25519 only."""
        return VerifyKey(self.raw[:KEY_BYTES])

    @cached_property
    def _mldsa(self) -> MLDSA65PublicKey:
        return MLDSA65PublicKey.from_public_bytes(self.raw[KEY_BYTES:])

    @property
    def fingerprint(self) -> str:
        """`SHA256:` and six groups of four, over both halves."""
        return spoken_fingerprint(self.raw)


class CompositeSigningKey:
    """A composite private key. Printing or comparing it does not reveal it."""

    def __init__(self, ed25519: SigningKey, mldsa: MLDSA65PrivateKey) -> None:
        self._ed25519, self._mldsa = ed25519, mldsa
        halves = ed25519.public.raw + mldsa.public_key().public_bytes_raw()
        self._public = CompositeVerifyKey(halves)

    @classmethod
    def generate(cls) -> Self:
        """Return a new key, each half from the operating system's generator."""
        return cls(SigningKey.generate(), MLDSA65PrivateKey.generate())

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Return the key whose two 32-byte seeds are `raw`. Raises KeyFault for another length."""
        if len(raw) != SECRET_BYTES:
            raise _not_composite()
        mldsa = MLDSA65PrivateKey.from_seed_bytes(raw[KEY_BYTES:])
        return cls(SigningKey.from_bytes(raw[:KEY_BYTES]), mldsa)

    def to_bytes(self) -> bytes:
        """Return both seeds, 64 bytes: a secret, for the key store only."""
        return self._ed25519.to_bytes() + self._mldsa.private_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return the 3373-byte signature over the message: 64 of Ed25519, 3309 of ML-DSA-65."""
        signed = _bound(self._public.raw, message)
        return self._ed25519.sign(signed) + self._mldsa.sign(signed)

    @property
    def public(self) -> CompositeVerifyKey:
        """The key that verifies what this one signs."""
        return self._public

    @property
    def ed25519(self) -> SigningKey:
        """The Ed25519 half, for agreements that require Ed25519 only."""
        return self._ed25519


Identity = SigningKey | CompositeSigningKey
"""A private key of either form."""
PublicIdentity = VerifyKey | CompositeVerifyKey
"""A public key of either form."""


class Suite(StrEnum):
    """The signature algorithms of a run's messages: the agreement decides, never a message."""

    ED25519 = "ed25519"
    COMPOSITE = "ed25519+mldsa65"

    @property
    def in_words(self) -> str:
        """The algorithms, as shown to a person."""
        if self is Suite.ED25519:
            return "Ed25519"
        return "Ed25519 and ML-DSA-65, both of which must be valid"

    def admits(self, key: PublicIdentity) -> bool:
        """Return whether a party with this key can sign as the agreement requires."""
        return self is Suite.ED25519 or isinstance(key, CompositeVerifyKey)

    def public(self, key: PublicIdentity) -> PublicIdentity:
        """Return the key that verifies this holder's messages. Raises KeyFault."""
        if not self.admits(key):
            raise _ed25519_only(key)
        if self is Suite.ED25519 and isinstance(key, CompositeVerifyKey):
            return key.ed25519
        return key

    def private(self, key: Identity) -> Identity:
        """Return the key that signs this holder's messages. Raises KeyFault."""
        self.public(key.public)
        if self is Suite.ED25519 and isinstance(key, CompositeSigningKey):
            return key.ed25519
        return key


def read_identity(text: str) -> PublicIdentity:
    """Return the public key from a text of either form. Raises KeyFault."""
    form = CompositeVerifyKey if text.startswith(PREFIX) else VerifyKey
    return form.from_text(text)


def identity_from_bytes(raw: bytes) -> Identity:
    """Return the private key of either form, which its length shows. Raises KeyFault."""
    form = CompositeSigningKey if len(raw) == SECRET_BYTES else SigningKey
    return form.from_bytes(raw)


def algorithms(key: PublicIdentity) -> str:
    """Return the algorithms that a key can sign with, as shown to a person."""
    return "Ed25519 and ML-DSA-65" if Suite.COMPOSITE.admits(key) else "Ed25519 only"


def halves(text: str) -> frozenset[bytes]:
    """Return the raw keys in a text of either form, to find a half that two keys share."""
    raw = binascii.a2b_base64(text.partition(":")[2])
    return frozenset({raw[:KEY_BYTES], raw[KEY_BYTES:]} - {b""})


def _bound(public: bytes, message: bytes) -> bytes:
    return labelled_hash(COMPOSITE_LABEL, public, message)


def _not_composite() -> KeyFault:
    return KeyFault(
        "This is not an Ed25519 and ML-DSA-65 key",
        why=f"a key is {PUBLIC_BYTES} bytes; in text, {PREFIX} and 2648 base64 characters",
        fix="copy the whole key again from where it was shown",
    )


def _ed25519_only(key: PublicIdentity) -> KeyFault:
    return KeyFault(
        "An identity signs with Ed25519 only",
        why=f"the agreement also requires ML-DSA-65; the key is {key.fingerprint}",
        fix="make a new key with `pratique-node rotate-keys` or `pratique-coordinator rotate`",
    )
