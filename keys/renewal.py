"""Renewal of transport certificates: when it is due, and proof that the holder has the new key.

It is due after two thirds of the certificate's lifetime and a delay that each holder draws at
random, so that parties admitted on one day do not all renew on one day.
"""

from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from keys.derive import frame
from keys.errors import KeyFault
from keys.pem import parse_certificate, parse_private_key, parse_public_key, pem_of_public

LABEL = b"pratique/renewal/v1"
EARLIEST, SPREAD = 2 / 3, 1 / 12
"""Of the lifetime: renewal is due from two thirds on, and for every holder at three quarters."""


def renewal_due(certificate_pem: bytes, now: datetime, share: float) -> bool:
    """Return whether renewal is due. `share`, from 0 to 1, is this holder's part of the delay."""
    certificate = parse_certificate(certificate_pem)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return now >= begins + (ends - begins) * (EARLIEST + SPREAD * share)


def ends_of(certificate_pem: bytes) -> datetime:
    """Return when a certificate expires. Raises KeyFault if unreadable."""
    return parse_certificate(certificate_pem).not_valid_after_utc


def serial_of(certificate_pem: bytes) -> int:
    """Return a certificate's serial number. Raises KeyFault if unreadable."""
    return parse_certificate(certificate_pem).serial_number


def certified_key(certificate_pem: bytes) -> bytes:
    """Return a certificate's public key, PEM. Raises KeyFault if it is no elliptic-curve key."""
    key = parse_certificate(certificate_pem).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise KeyFault("This certificate is not for an elliptic-curve key")
    return pem_of_public(key)


def renewal_proof(new_key_pem: bytes, old_serial: int) -> bytes:
    """Sign the new public key and the old certificate's serial number with the new key."""
    key = parse_private_key(new_key_pem)
    return key.sign(_signed(key.public_key(), old_serial), ec.ECDSA(SHA256()))


def proven_key(new_public_pem: bytes, proof: bytes, old_serial: int) -> bytes:
    """Check a renewal proof, and return the new public key in its one PEM form.

    Raises KeyFault for another kind of key, and for a proof made with another key or for another
    certificate.
    """
    key = parse_public_key(new_public_pem)
    try:
        key.verify(proof, _signed(key, old_serial), ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise KeyFault(
            "The holder of the new key did not ask for this renewal",
            why="the proof was made with another key, or for another certificate",
            fix="renew again with this version of the program",
        ) from None
    return pem_of_public(key)


def _signed(key: ec.EllipticCurvePublicKey, old_serial: int) -> bytes:
    return frame(LABEL, str(old_serial).encode(), pem_of_public(key))
