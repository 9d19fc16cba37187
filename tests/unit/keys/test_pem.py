"""PEM of P-256 keys and certificates is read; everything else gives one clear error."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
)

from keys.certificates import TransportAuthority
from keys.errors import KeyFault
from keys.pem import (
    MAX_CERTIFICATES,
    PEM_LIMIT_BYTES,
    parse_certificate,
    parse_certificates,
    parse_node_auth,
    parse_private_key,
    parse_public_key,
    pem_of_certificate,
    pem_of_public,
    private_pem,
    without_comment,
)
from tests.support.documents import NOW

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_CURVE = ec.generate_private_key(ec.SECP384R1())
OTHER_KIND = ed25519.Ed25519PrivateKey.generate()
CERTIFICATE = TransportAuthority.create("danube", NOW).certificate_pem


def test_a_private_key_is_read_as_it_was_written() -> None:
    pem = private_pem(KEY)
    assert private_pem(parse_private_key(pem)) == pem


def test_a_public_key_has_one_canonical_form() -> None:
    pem = pem_of_public(KEY.public_key())
    assert pem_of_public(parse_public_key(pem.replace(b"\n", b"\r\n"))) == pem


def test_certificates_are_read_in_their_order() -> None:
    two = CERTIFICATE + CERTIFICATE
    assert pem_of_certificate(parse_certificate(CERTIFICATE)) == CERTIFICATE
    assert [pem_of_certificate(certificate) for certificate in parse_certificates(two)] == [
        CERTIFICATE
    ] * 2


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"no PEM",
        CERTIFICATE,
        private_pem(KEY)[:-40],
        private_pem(OTHER_CURVE),
        OTHER_KIND.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        ),
        KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")),
        private_pem(KEY) + b" " * PEM_LIMIT_BYTES,
    ],
)
def test_other_private_keys_are_refused(pem: bytes) -> None:
    with pytest.raises(KeyFault, match="not a P-256 private key"):
        parse_private_key(pem)


@pytest.mark.parametrize("key", [OTHER_CURVE.public_key(), OTHER_KIND.public_key()])
def test_other_public_keys_are_refused(
    key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey,
) -> None:
    with pytest.raises(KeyFault, match="not a P-256 public key"):
        parse_public_key(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


@pytest.mark.parametrize("key", [KEY, OTHER_CURVE])
def test_a_superlink_key_is_read_from_its_line_with_or_without_a_comment(
    key: ec.EllipticCurvePrivateKey,
) -> None:
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    for text in (line, f"{line} node@host", f" {line}\n"):
        assert parse_node_auth(text).public_numbers() == key.public_key().public_numbers()
        assert without_comment(text) == line


@pytest.mark.parametrize("change", [("AAAA", "AA*AA"), (" ", "\t*"), ("ecdsa", "ECDSA")])
def test_a_superlink_key_has_one_line(change: tuple[str, str]) -> None:
    line = KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    with pytest.raises(KeyFault):
        parse_node_auth(line.replace(*change, 1))


def test_a_file_has_a_limited_number_of_certificates() -> None:
    assert len(parse_certificates(CERTIFICATE * MAX_CERTIFICATES)) == MAX_CERTIFICATES
    with pytest.raises(KeyFault):
        parse_certificates(CERTIFICATE * (MAX_CERTIFICATES + 1))
