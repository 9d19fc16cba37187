import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB

from protocols.private_sum.masking import Masker

KEY = bytes(range(32))


def test_the_stream_is_aes_of_a_counter() -> None:
    """Counter mode (SP 800-38A, 6.5) computed block by block as an independent reference."""
    block = Cipher(AES256(KEY), ECB()).encryptor()  # noqa: S305
    blocks = b"".join(block.update(i.to_bytes(16, "big")) for i in range(3))
    assert Masker(5).stream(KEY).tobytes() == blocks[:40]


def test_a_known_answer() -> None:
    """The block of zeros under the key of zeros: H of test case 13, McGrew and Viega 2005."""
    first = Masker(2).stream(bytes(32)).tobytes().hex()
    assert first == "dc95c078a2408989ad48a21492842087"


def test_a_mask_can_be_removed() -> None:
    vector = np.arange(7, dtype=np.uint64)
    masker = Masker(7)
    masker.add(KEY, vector)
    assert not (vector == np.arange(7)).any()
    masker.subtract(KEY, vector)
    assert vector.tolist() == list(range(7))


def test_arithmetic_wraps_at_64_bits() -> None:
    vector = np.full(3, 2**64 - 1, np.uint64)
    stream = Masker(3).stream(KEY).copy()
    Masker(3).add(KEY, vector)
    assert vector.tolist() == [int(word) - 1 for word in stream]


def test_streams_of_two_keys_are_unrelated() -> None:
    one, other = (Masker(64).stream(key).copy() for key in (KEY, KEY[::-1]))
    assert not set(one.tolist()) & set(other.tolist())


def test_bits_of_a_stream_are_about_uniform() -> None:
    """Bits of 10^4 words are set half of the time; the limit is eight deviations."""
    ones = int(np.bitwise_count(Masker(10_000).stream(KEY)).sum())
    assert abs(ones - 320_000) < 8 * 400


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="key"):
        Masker(1).stream(bytes(16))


def test_the_buffer_is_reused() -> None:
    masker = Masker(4)
    assert masker.words == 4
    assert masker.stream(KEY) is masker.stream(bytes(32))
