import hashlib
import hmac

import pytest

from keys.derive import derive_key, frame, labelled_hash


def hkdf_by_hand(secret: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, sections 2.2 and 2.3, with no salt."""
    pseudorandom = hmac.digest(bytes(32), secret, "sha256")
    block, out, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.digest(pseudorandom, block + info + bytes([counter]), "sha256")
        out, counter = out + block, counter + 1
    return out[:length]


def test_frame_puts_eight_length_bytes_before_each_field() -> None:
    assert frame(b"ab", b"") == bytes(7) + b"\x02ab" + bytes(8)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((b"ab", b"c"), (b"a", b"bc")),
        ((b"a",), (b"a", b"")),
        ((), (b"",)),
        ((b"a", b"b"), (b"b", b"a")),
    ],
)
def test_different_fields_hash_differently(
    one: tuple[bytes, ...], other: tuple[bytes, ...]
) -> None:
    assert labelled_hash("label", *one) != labelled_hash("label", *other)


def test_a_label_cannot_be_exchanged_for_a_field() -> None:
    assert labelled_hash("label", b"field") != labelled_hash("labelfield")
    assert labelled_hash("a", b"x") != labelled_hash("b", b"x")


@pytest.mark.parametrize("length", [16, 32, 100])
def test_derive_key_is_hkdf_with_framed_info(length: int) -> None:
    expected = hkdf_by_hand(b"secret", frame(b"label", b"field"), length)
    assert derive_key(b"secret", "label", b"field", length=length) == expected


def test_derived_keys_differ_by_secret_label_and_field() -> None:
    keys = {
        derive_key(b"s", "label", b"f"),
        derive_key(b"t", "label", b"f"),
        derive_key(b"s", "other", b"f"),
        derive_key(b"s", "label", b"g"),
    }
    assert len(keys) == 4


@pytest.mark.parametrize("size", [0, 1, 64, 3_000_000])
def test_a_labelled_hash_is_sha256_of_the_frame(size: int) -> None:
    fields = b"first", bytes(size)
    assert labelled_hash("label", *fields) == hashlib.sha256(frame(b"label", *fields)).digest()
