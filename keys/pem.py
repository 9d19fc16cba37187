"""Reads and writes P-256 keys and X.509 certificates in PEM form, and a node's SuperLink key.

Input is limited in size. Anything unreadable raises KeyFault, here and not when it is used.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
    load_ssh_public_key,
)

from keys.errors import KeyFault

PEM_LIMIT_BYTES = 16 * 1024
MAX_CERTIFICATES = 8
"""In one file; at most two authorities overlap."""

SUPERLINK_CURVES = (ec.SECP256R1, ec.SECP384R1)
"""The curves of keys with which the SuperLink admits a node."""
UNREADABLE = (
    ValueError,
    TypeError,
    NotImplementedError,  # an SSH key with a compressed point
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the parsers raise."""

Parsed = TypeVar("Parsed")


def parse_certificate(pem: bytes) -> x509.Certificate:
    """Return the first certificate of a PEM file. Raises KeyFault."""
    return _parse(lambda data: _whole(x509.load_pem_x509_certificate(data)), pem, "certificate")


def parse_certificates(pem: bytes) -> list[x509.Certificate]:
    """Return all certificates of a PEM file, eight at most. Raises KeyFault."""
    certificates = _parse(
        lambda data: list(map(_whole, x509.load_pem_x509_certificates(data))), pem, "certificate"
    )
    if len(certificates) > MAX_CERTIFICATES:
        raise _unreadable("certificate")
    return certificates


def parse_private_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Return an unencrypted P-256 private key. Raises KeyFault."""
    key = _parse(lambda data: load_pem_private_key(data, None), pem, "private key")
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not _is_p256(key.curve):
        raise _unreadable("private key")
    return key


def parse_public_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    """Return a P-256 public key. Raises KeyFault."""
    key = _parse(load_pem_public_key, pem, "public key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not _is_p256(key.curve):
        raise _unreadable("public key")
    return key


def parse_node_auth(line: str) -> ec.EllipticCurvePublicKey:
    """Return a node's SuperLink key from its OpenSSH line, after which a comment may follow.

    Each key has one line, by which keys are compared. Raises KeyFault for any other text.
    """
    words, key = without_comment(line), None
    with suppress(*UNREADABLE):
        key = load_ssh_public_key(words.encode())
    if not isinstance(key, ec.EllipticCurvePublicKey) or _ssh_line(key) != words:
        raise KeyFault(
            "This is not a node's key for the SuperLink",
            why="it is not the one OpenSSH line of a P-256 or P-384 key",
            fix="use the line that `pratique-node init` made",
        )
    return key


def _ssh_line(key: ec.EllipticCurvePublicKey) -> str:
    """Return the line of a key; empty if its curve is not one that the SuperLink accepts."""
    if not isinstance(key.curve, SUPERLINK_CURVES):
        return ""
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def without_comment(line: str) -> str:
    """Return the two words of an OpenSSH public key line that are the key."""
    return " ".join(line.split()[:2])


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as unencrypted PKCS 8 PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def pem_of_public(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a public key in its one PEM form."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def pem_of_certificate(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM)


def _is_p256(curve: ec.EllipticCurve) -> bool:
    return isinstance(curve, ec.SECP256R1)


def _whole(certificate: x509.Certificate) -> x509.Certificate:
    """Return the certificate, after reading what is otherwise read only when it is used."""
    certificate.public_key()
    _ = certificate.extensions, certificate.subject, certificate.issuer
    return certificate


def _parse(load: Callable[[bytes], Parsed], pem: bytes, kind: str) -> Parsed:
    try:
        if len(pem) <= PEM_LIMIT_BYTES:
            return load(pem)
    except UNREADABLE:
        pass
    raise _unreadable(kind)


def _unreadable(kind: str) -> KeyFault:
    return KeyFault(
        f"This is not a P-256 {kind} in PEM form",
        why="it is damaged, encrypted, too large, or of another kind",
        fix="use the original file, unchanged",
    )
