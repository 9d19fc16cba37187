"""Hybrid key agreement for one run: X25519 (RFC 7748) together with ML-KEM-768 (FIPS 203).

Each algorithm gives one secret. The caller derives a key from both secrets and the transcript, so
that the key is safe as long as one of the algorithms is. Nothing here authenticates a sender:
identities sign bundles and ciphertexts, and key confirmation proves that both sides have the same
secrets.
"""

from dataclasses import dataclass
from typing import Self

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from keys.errors import KeyFault

X25519_BYTES = 32
MLKEM_SEED_BYTES = 64
MLKEM_CIPHERTEXT_BYTES = 1088


@dataclass(frozen=True)
class HybridPublic:
    """The public halves: `x25519` (32 bytes) and `mlkem` (1184 bytes).

    Raises KeyFault if a length is wrong or `mlkem` fails the modulus check (FIPS 203, 7.2).
    """

    x25519: bytes
    mlkem: bytes

    def __post_init__(self) -> None:
        if len(self.x25519) != X25519_BYTES:
            raise _unusable("the X25519 key is not 32 bytes long")
        _mlkem_key(self.mlkem)


class HybridKey:
    """The private halves, fresh for one run of one country."""

    def __init__(self, x25519: X25519PrivateKey, mlkem: MLKEM768PrivateKey) -> None:
        self._x25519, self._mlkem = x25519, mlkem

    @classmethod
    def generate(cls) -> Self:
        """Return a new pair of keys from the operating system's generator."""
        return cls(X25519PrivateKey.generate(), MLKEM768PrivateKey.generate())

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Return the keys from the output of `to_bytes`. Raises KeyFault for another length."""
        if len(raw) != X25519_BYTES + MLKEM_SEED_BYTES:
            raise _unusable("its stored form has the wrong length")
        return cls(
            X25519PrivateKey.from_private_bytes(raw[:X25519_BYTES]),
            MLKEM768PrivateKey.from_seed_bytes(raw[X25519_BYTES:]),
        )

    def to_bytes(self) -> bytes:
        """Return the X25519 key and the ML-KEM seed, 96 bytes: secret, to be sealed."""
        return self._x25519.private_bytes_raw() + self._mlkem.private_bytes_raw()

    @property
    def public(self) -> HybridPublic:
        """The public halves."""
        return HybridPublic(
            self._x25519.public_key().public_bytes_raw(),
            self._mlkem.public_key().public_bytes_raw(),
        )

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """Return the 32-byte ML-KEM secret of a 1088-byte ciphertext.

        A ciphertext for another key, or a changed one, gives an unrelated secret and no error
        (FIPS 203, implicit rejection): only key confirmation detects it. Raises KeyFault for a
        wrong length.
        """
        if len(ciphertext) != MLKEM_CIPHERTEXT_BYTES:
            raise _unusable("the ML-KEM ciphertext is not 1088 bytes long")
        return self._mlkem.decapsulate(ciphertext)

    def exchange(self, peer: HybridPublic) -> bytes:
        """Return the 32-byte X25519 secret shared with the peer.

        Raises KeyFault if it is all zero: the peer's key is of small order (RFC 7748, 6.1).
        """
        try:
            return self._x25519.exchange(X25519PublicKey.from_public_bytes(peer.x25519))
        except ValueError:
            raise _unusable("the X25519 key is of small order and gives no secret") from None


def encapsulate(peer: HybridPublic) -> tuple[bytes, bytes]:
    """Return a 1088-byte ciphertext for the peer's ML-KEM key, and the 32-byte secret in it."""
    secret, ciphertext = _mlkem_key(peer.mlkem).encapsulate()
    return ciphertext, secret


def _mlkem_key(raw: bytes) -> MLKEM768PublicKey:
    try:
        return MLKEM768PublicKey.from_public_bytes(raw)
    except ValueError:
        raise _unusable("the ML-KEM-768 key is malformed") from None


def _unusable(why: str) -> KeyFault:
    return KeyFault("A key agreement key cannot be used", why=why)
