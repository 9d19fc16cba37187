"""When a transport certificate is renewed, and how its holder shows that it has the new key.

The certificate itself says when: at two thirds of its life, later by a share that each holder
draws for itself, so that parties admitted on one day do not all renew on one day.
"""

from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from keys.derive import frame
from keys.errors import KeyFault
from keys.pem import parsed_certificate, parsed_private_key, parsed_public_key, pem_of_public

LABEL = b"pratique/renewal/v1"
EARLIEST, SPREAD = 2 / 3, 1 / 12
"""Of the certificate's life: renewed from two thirds on, at three quarters by everybody."""


def renewal_due(certificate_pem: bytes, now: datetime, share: float) -> bool:
    """Return whether it is time to renew. `share`, from 0 to 1, is this holder's own delay."""
    certificate = parsed_certificate(certificate_pem)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return now >= begins + (ends - begins) * (EARLIEST + SPREAD * share)


def ends_of(certificate_pem: bytes) -> datetime:
    """Return when a certificate ends. Raises KeyFault if unreadable."""
    return parsed_certificate(certificate_pem).not_valid_after_utc


def serial_of(certificate_pem: bytes) -> int:
    """Return a certificate's serial number. Raises KeyFault if unreadable."""
    return parsed_certificate(certificate_pem).serial_number


def certified_key(certificate_pem: bytes) -> bytes:
    """Return the public key that a certificate is for, PEM. Raises KeyFault if it is no P-256."""
    key = parsed_certificate(certificate_pem).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise KeyFault("This certificate is for another kind of key")
    return pem_of_public(key)


def renewal_proof(new_key_pem: bytes, old_serial: int) -> bytes:
    """Return a signature with the new key over itself and the old certificate's serial number."""
    key = parsed_private_key(new_key_pem)
    return key.sign(_signed(key.public_key(), old_serial), ec.ECDSA(SHA256()))


def proven_key(new_public_pem: bytes, proof: bytes, old_serial: int) -> bytes:
    """Return the new public key, in its one PEM spelling, if its holder asked for this renewal.

    Raises KeyFault for another kind of key and for a proof made with another key or for another
    certificate.
    """
    key = parsed_public_key(new_public_pem)
    try:
        key.verify(proof, _signed(key, old_serial), ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise KeyFault(
            "A renewal was not asked for by the holder of the new key",
            why="its proof was made with another key, or for another certificate",
            fix="renew with the program of this version",
        ) from None
    return pem_of_public(key)


def _signed(key: ec.EllipticCurvePublicKey, old_serial: int) -> bytes:
    return frame(LABEL, str(old_serial).encode(), pem_of_public(key))
