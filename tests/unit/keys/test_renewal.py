"""When a certificate is renewed, and who may request it."""

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from keys.certificates import TransportAuthority, new_transport_key, public_pem
from keys.errors import KeyFault
from keys.renewal import (
    certified_key,
    ends_of,
    proven_key,
    renewal_due,
    renewal_proof,
    serial_of,
)
from tests.support.certificates import (
    KEY,
    MONTH,
    NOW,
    issued,
)

AUTHORITY = TransportAuthority.create("danube", NOW)
CERTIFICATE = issued(AUTHORITY)
SERIAL = 2**150 + 7
SECOND = timedelta(seconds=1)


def test_a_certificate_states_its_serial_its_end_and_its_key() -> None:
    assert serial_of(CERTIFICATE) != serial_of(issued(AUTHORITY))
    assert ends_of(CERTIFICATE) == (NOW + MONTH).replace(microsecond=0)
    assert certified_key(CERTIFICATE) == public_pem(KEY)


@pytest.mark.parametrize("delay_fraction", [0.0, 0.5, 1.0])
def test_a_certificate_is_renewed_between_two_thirds_and_three_quarters_of_its_life(
    delay_fraction: float,
) -> None:
    assert not renewal_due(CERTIFICATE, NOW + MONTH * 0.66, delay_fraction)
    assert renewal_due(CERTIFICATE, NOW + MONTH * 0.67, delay_fraction) is (delay_fraction == 0.0)
    assert renewal_due(CERTIFICATE, NOW + MONTH * 0.751, delay_fraction)
    assert renewal_due(CERTIFICATE, NOW + 2 * MONTH, delay_fraction)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_party_with_a_larger_delay_renews_later(first: float, second: float) -> None:
    smaller, larger = sorted((first, second))
    for eightieth in range(60, 80):
        if renewal_due(CERTIFICATE, NOW + MONTH * eightieth / 80, larger):
            assert renewal_due(CERTIFICATE, NOW + MONTH * eightieth / 80, smaller)


def test_a_request_of_the_holder_of_the_new_key_is_accepted() -> None:
    key = new_transport_key()
    assert proven_key(public_pem(key), renewal_proof(key, SERIAL), SERIAL) == public_pem(key)


def test_a_key_has_one_canonical_form() -> None:
    """Otherwise a repeated request could appear to be for another key."""
    key = new_transport_key()
    reformatted = b"\n# my key\n" + public_pem(key).replace(b"\n", b"\r\n") + b"\n"
    assert proven_key(reformatted, renewal_proof(key, SERIAL), SERIAL) == public_pem(key)


def test_a_missing_malformed_or_foreign_proof_is_refused() -> None:
    key, other = new_transport_key(), new_transport_key()
    proofs = {
        "for another certificate": renewal_proof(key, SERIAL + 1),
        "by another key": renewal_proof(other, SERIAL),
        "missing": b"",
        "junk": b"\x30\x06\x02\x01\x00\x02\x01\x00",
        "truncated": renewal_proof(key, SERIAL)[:-1],
        "one byte too long": renewal_proof(key, SERIAL) + b"\0",
    }
    for name, proof in proofs.items():
        with pytest.raises(KeyFault) as caught:
            proven_key(public_pem(key), proof, SERIAL)
        assert "holder of the new key" in caught.value.what, name


def pem(key: object) -> bytes:
    public = key.public_key()  # type: ignore[attr-defined]
    return bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"junk",
        KEY,
        pem(ec.generate_private_key(ec.SECP384R1())),
        pem(ec.generate_private_key(ec.SECP192R1())),
        pem(rsa.generate_private_key(65537, 2048)),
        pem(Ed25519PrivateKey.generate()),
        public_pem(KEY) + b"#" * 20_000,
    ],
    ids=["nothing", "junk", "private", "P-384", "P-192", "RSA", "Ed25519", "oversized"],
)
def test_a_key_of_another_kind_is_refused(key: bytes) -> None:
    with pytest.raises(KeyFault):
        proven_key(key, renewal_proof(KEY, SERIAL), SERIAL)


@given(st.binary(max_size=200), st.binary(max_size=100))
def test_malformed_requests_give_a_clear_error(key: bytes, proof: bytes) -> None:
    with pytest.raises(KeyFault):
        proven_key(key, proof, SERIAL)
