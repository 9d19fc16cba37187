"""Masks: pseudorandom words of AES-256-CTR, added to or subtracted from a vector of words in place.

A key makes one stream, from counter zero. Each key is derived for one pair and one context, or
drawn for one round, and is never used for a second stream (NIST SP 800-38A, appendix B).
"""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

WORDS_DTYPE = np.dtype("<u8")
FIRST_COUNTER = bytes(16)
KEY_BYTES = 32


class Masker:
    """Masks vectors of one length, through buffers that are allocated once.

    `words` is the length, in 64-bit words. Arithmetic is modulo 2^64.
    """

    def __init__(self, words: int) -> None:
        self._zeros = bytes(8 * words)
        self._stream = np.empty(words, WORDS_DTYPE)

    @property
    def words(self) -> int:
        """The length of the vectors that this masks."""
        return self._stream.size

    def add(self, key: bytes, vector: NDArray[np.uint64]) -> None:
        """Add PRG(key), a 32-byte key, to the vector (words,) uint64."""
        np.add(vector, self.stream(key), out=vector)

    def subtract(self, key: bytes, vector: NDArray[np.uint64]) -> None:
        """Subtract PRG(key), a 32-byte key, from the vector (words,) uint64."""
        np.subtract(vector, self.stream(key), out=vector)

    def stream(self, key: bytes) -> NDArray[np.uint64]:
        """Return PRG(key), (words,) uint64; the next call overwrites it."""
        encryptor = Cipher(AES256(key), CTR(FIRST_COUNTER)).encryptor()
        encryptor.update_into(self._zeros, self._stream.data.cast("B"))
        return self._stream
