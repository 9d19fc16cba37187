"""Authenticated encryption of one value under one 256-bit key.

AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce before the ciphertext. A key may seal at
most 2^32 values (section 8.3). Nothing here counts them, so callers derive fresh keys.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keys.errors import KeyFault

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16


def seal(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Return `plaintext` encrypted under a 32-byte key: nonce, ciphertext and tag.

    The result is bound to `associated`. Raises KeyFault if the key is not 32 bytes long.
    """
    nonce = os.urandom(NONCE_BYTES)
    return nonce + _cipher(key).encrypt(nonce, plaintext, associated)


def open_sealed(key: bytes, sealed: bytes, associated: bytes) -> bytes:
    """Decrypt what `seal` returned for this key and these associated bytes.

    Raises KeyFault if the key or the associated bytes differ, or if anything was changed.
    """
    cipher = _cipher(key)
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise _cannot_open()
    try:
        return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], associated)
    except InvalidTag:
        raise _cannot_open() from None


def _cipher(key: bytes) -> AESGCM:
    if len(key) != KEY_BYTES:  # AESGCM would accept 16 bytes and use AES-128
        raise KeyFault(
            "A sealing key has the wrong length", why=f"it has {len(key)} bytes, not {KEY_BYTES}"
        )
    return AESGCM(key)


def _cannot_open() -> KeyFault:
    return KeyFault(
        "Sealed data cannot be opened",
        why="it was sealed under another key or for another purpose, or it was changed",
    )
