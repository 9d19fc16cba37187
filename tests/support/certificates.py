"""Make transport certificates, honest and forged."""

import base64
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from keys.certificates import Peer, Role, TransportAuthority, new_transport_key, peer_of, public_pem

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
MONTH = timedelta(days=30)
KEY = new_transport_key()


def issued(
    authority: TransportAuthority,
    *,
    country: str = "AT",
    role: Role = Role.NODE,
    now: datetime = NOW,
    lifetime: timedelta = MONTH,
    hosts: tuple[str, ...] = (),
) -> bytes:
    return authority.issue(
        public_pem(KEY), country=country, role=role, now=now, lifetime=lifetime, hosts=hosts
    )


def seen_by(
    authority: TransportAuthority,
    pem: bytes,
    *,
    now: datetime = NOW,
    revoked: frozenset[int] = frozenset(),
) -> Peer:
    return peer_of(pem, authority_pem=authority.certificate_pem, now=now, revoked=revoked)


def alternative_names(pem: bytes) -> x509.SubjectAlternativeName:
    extensions = x509.load_pem_x509_certificate(pem).extensions
    return extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def forged(authority: TransportAuthority, names: list[x509.GeneralName] | None) -> bytes:
    """Return a certificate signed by the authority's key, with names that it never issues."""
    builder = (
        x509.CertificateBuilder()
        .issuer_name(authority._certificate.subject)
        .subject_name(x509.Name([]))
        .public_key(authority._key.public_key())
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + MONTH)
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(authority._key, SHA256()).public_bytes(Encoding.PEM)


def uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(text)


def as_pem(der: bytes) -> bytes:
    body = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"
