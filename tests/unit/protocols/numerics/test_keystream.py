"""A keystream is AES-256-CTR under a key that it draws, in multiples of 2^-32."""

import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from protocols.numerics.keystream import KEY_BYTES, STEP, Keystream

KEY = bytes(range(32))


def test_it_is_the_cipher_s_stream_from_counter_zero() -> None:
    stream = Cipher(AES256(KEY), CTR(bytes(16))).encryptor().update(bytes(40))
    fractions = Keystream(lambda _: KEY).fractions(10)
    assert (fractions == np.frombuffer(stream, np.uint32) / 2**32).all()


def test_it_continues_where_it_stopped() -> None:
    whole, parts = Keystream(lambda _: KEY), Keystream(lambda _: KEY)
    assert (whole.fractions(9) == np.concatenate([parts.fractions(4), parts.fractions(5)])).all()


def test_it_draws_its_own_key_once() -> None:
    requested: list[int] = []

    def entropy(size: int) -> bytes:
        requested.append(size)
        return os.urandom(size)

    first, second = Keystream(entropy), Keystream(entropy)
    assert (first.fractions(8) != second.fractions(8)).any()
    assert requested == [KEY_BYTES, KEY_BYTES]


def test_fractions_are_below_one() -> None:
    fractions = Keystream(os.urandom).fractions(10_000)
    assert fractions.dtype == np.float64
    assert fractions.min() >= 0
    assert fractions.max() <= 1 - STEP
