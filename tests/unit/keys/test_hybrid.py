import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from keys.errors import KeyFault
from keys.hybrid import HybridKey, HybridPublic, encapsulate

# every u-coordinate of small order on curve25519 and its twist, below 2^255 (cr.yp.to/ecdh.html)
SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def test_two_countries_reach_the_same_two_secrets() -> None:
    lower, higher = HybridKey.generate(), HybridKey.generate()
    ciphertext, secret = encapsulate(higher.public)
    assert (len(ciphertext), len(secret)) == (1088, 32)
    assert higher.decapsulate(ciphertext) == secret
    assert lower.exchange(higher.public) == higher.exchange(lower.public)


def test_x25519_is_that_of_rfc_7748() -> None:
    """Section 6.1: Alice's private key, Bob's public key and their shared secret."""
    alice = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
    bob = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    key = HybridKey.from_bytes(bytes.fromhex(alice) + bytes(64))
    peer = HybridPublic(bytes.fromhex(bob), key.public.mlkem)
    assert key.exchange(peer).hex() == shared


def test_each_encapsulation_and_each_key_is_fresh() -> None:
    peer = HybridKey.generate().public
    encapsulated = [encapsulate(peer) for _ in range(10)]
    assert len({ciphertext for ciphertext, _ in encapsulated}) == 10
    assert len({secret for _, secret in encapsulated}) == 10
    assert len({HybridKey.generate().to_bytes() for _ in range(10)}) == 10


def test_stored_keys_are_the_same_keys() -> None:
    key = HybridKey.generate()
    again = HybridKey.from_bytes(key.to_bytes())
    ciphertext, secret = encapsulate(key.public)
    assert again.public == key.public
    assert again.decapsulate(ciphertext) == secret
    assert len(key.to_bytes()) == 96


def test_the_halves_are_those_of_the_library() -> None:
    key = HybridKey.generate()
    x25519, seed = key.to_bytes()[:32], key.to_bytes()[32:]
    assert key.public == HybridPublic(
        X25519PrivateKey.from_private_bytes(x25519).public_key().public_bytes_raw(),
        MLKEM768PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw(),
    )


def test_a_third_country_reaches_neither_secret() -> None:
    lower, higher, third = (HybridKey.generate() for _ in range(3))
    ciphertext, secret = encapsulate(higher.public)
    assert third.decapsulate(ciphertext) != secret
    assert third.exchange(lower.public) != higher.exchange(lower.public)


@pytest.mark.parametrize("position", [0, 500, 1087])
def test_a_changed_ciphertext_gives_another_secret_without_an_error(position: int) -> None:
    key = HybridKey.generate()
    ciphertext, secret = encapsulate(key.public)
    changed = bytearray(ciphertext)
    changed[position] ^= 1
    rejected = key.decapsulate(bytes(changed))
    assert rejected != secret
    assert rejected == key.decapsulate(bytes(changed))


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_a_peer_of_small_order_is_refused(point: str) -> None:
    key = HybridKey.generate()
    raw = bytes.fromhex(point)
    for encoding in (raw, raw[:-1] + bytes([raw[-1] | 0x80])):
        with pytest.raises(KeyFault, match="small order"):
            key.exchange(HybridPublic(encoding, key.public.mlkem))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_an_x25519_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(KeyFault, match="32 bytes"):
        HybridPublic(b"\x09" * length, HybridKey.generate().public.mlkem)


@pytest.mark.parametrize("length", [0, 800, 1183, 1185, 1568])
def test_an_mlkem_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(KeyFault, match="malformed"):
        HybridPublic(HybridKey.generate().public.x25519, bytes(length))


def test_an_mlkem_key_with_a_coefficient_above_the_modulus_is_refused() -> None:
    """FIPS 203, section 7.2: 0xFFF is 4095, and q is 3329."""
    public = HybridKey.generate().public
    with pytest.raises(KeyFault, match="malformed"):
        HybridPublic(public.x25519, b"\xff\xff\xff" + public.mlkem[3:])


@pytest.mark.parametrize("length", [0, 1087, 1089, 1568])
def test_a_ciphertext_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(KeyFault, match="1088"):
        HybridKey.generate().decapsulate(bytes(length))


@pytest.mark.parametrize("length", [0, 32, 95, 97])
def test_a_stored_form_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(KeyFault, match="stored form"):
        HybridKey.from_bytes(bytes(length))


def test_private_keys_do_not_show_themselves() -> None:
    key = HybridKey.generate()
    assert key.to_bytes()[:32].hex() not in repr(key)
    assert repr(key.to_bytes())[2:-1] not in repr(vars(key))
