import pytest

from keys.errors import KeyFault
from keys.sealing import NONCE_BYTES, TAG_BYTES, open_sealed, seal

KEY = bytes(range(32))


def test_sealed_data_can_be_opened() -> None:
    assert open_sealed(KEY, seal(KEY, b"secret", b"purpose"), b"purpose") == b"secret"


def test_empty_data_can_be_sealed() -> None:
    sealed = seal(KEY, b"", b"")
    assert len(sealed) == NONCE_BYTES + TAG_BYTES
    assert open_sealed(KEY, sealed, b"") == b""


def test_it_is_aes_256_gcm_with_the_nonce_in_front() -> None:
    """Test case 14 of McGrew and Viega, The Galois/Counter Mode of Operation."""
    sealed = bytes(12) + bytes.fromhex(
        "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
    )
    assert open_sealed(bytes(32), sealed, b"") == bytes(16)


def test_every_seal_has_a_fresh_nonce() -> None:
    nonces = {seal(KEY, b"same", b"same")[:NONCE_BYTES] for _ in range(100)}
    assert len(nonces) == 100


def test_flipping_any_bit_of_any_byte_is_noticed() -> None:
    sealed = seal(KEY, b"secret", b"purpose")
    for position in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(KeyFault, match="cannot be opened"):
            open_sealed(KEY, bytes(changed), b"purpose")


def test_every_shorter_and_a_longer_form_is_refused() -> None:
    sealed = seal(KEY, b"secret", b"purpose")
    for cut in [*(sealed[:end] for end in range(len(sealed))), sealed + b"\0"]:
        with pytest.raises(KeyFault, match="cannot be opened"):
            open_sealed(KEY, cut, b"purpose")


@pytest.mark.parametrize("other_purpose", [b"", b"purpos", b"purpose ", b"Purpose"])
def test_it_does_not_open_for_another_purpose(other_purpose: bytes) -> None:
    with pytest.raises(KeyFault, match="another purpose"):
        open_sealed(KEY, seal(KEY, b"secret", b"purpose"), other_purpose)


def test_it_does_not_open_under_another_key() -> None:
    with pytest.raises(KeyFault, match="another key"):
        open_sealed(bytes(32), seal(KEY, b"secret", b""), b"")


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33, 64])
def test_only_256_bit_keys_are_accepted(length: int) -> None:
    with pytest.raises(KeyFault, match="wrong length"):
        seal(bytes(length), b"", b"")
    with pytest.raises(KeyFault, match="wrong length"):
        open_sealed(bytes(length), seal(KEY, b"", b""), b"")
