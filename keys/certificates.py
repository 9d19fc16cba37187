"""Transport certificates of one federation: who may open a channel to its exchange.

A certificate only lets its holder connect. In a study only signatures by the identities in the
documents count, since the coordinator may run this authority. Keys are ECDSA P-256, because gRPC's
TLS accepts no Ed25519 certificate. Certificates follow RFC 5280.
"""

import hashlib
import ipaddress
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keys.errors import KeyFault
from keys.pem import (
    parse_certificate,
    parse_certificates,
    parse_private_key,
    parse_public_key,
    pem_of_public,
    private_pem,
)

AUTHORITY_LIFETIME = timedelta(days=3650)
CLOCK_SKEW = timedelta(minutes=5)

FEDERATION = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
COUNTRY = r"[A-Z]{2}"
PEER_URI = re.compile(f"pratique://({FEDERATION})/({COUNTRY})/([a-z]+)")
HOST_NAME = re.compile(
    r"(?=.{1,253}$)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*"
    r"[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # not all digits: that would be an address
)


class Role(StrEnum):
    """The role of a certificate's holder: the last part of the certificate's URI."""

    COORDINATOR = "coordinator"
    NODE = "node"
    OFFICER = "officer"
    ENROLMENT = "enrolment"


@dataclass(frozen=True)
class Peer:
    """The party at the other end of a channel, as its certificate names it.

    `country` has the form of ISO 3166-1 alpha-2; the caller checks which codes are parties.
    """

    federation: str
    country: str
    role: Role
    serial: int
    not_after: datetime


class TransportAuthority:
    """The federation's own certificate authority for mutual TLS."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate, self._key = certificate, key

    @classmethod
    def create(cls, federation: str, now: datetime) -> Self:
        """Create an authority that is valid for ten years, with a new P-256 key.

        `federation` is a short name: lower-case letters, digits, hyphens. Raises KeyFault.
        """
        _require(re.compile(FEDERATION), federation, "the name of a federation")
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(_self_signed(federation, key, now), key)

    @classmethod
    def from_pem(cls, certificate_pem: bytes, key_pem: bytes) -> Self:
        """Return the authority that `to_pem` wrote. Raises KeyFault if the two do not match."""
        certificate, key = parse_certificate(certificate_pem), parse_private_key(key_pem)
        if certificate.public_key() != key.public_key() or not federations_of(certificate):
            raise KeyFault(
                "This is not a transport authority",
                why="the certificate is not an authority's, or belongs to another key",
                fix="restore both from the same backup",
            )
        return cls(certificate, key)

    def to_pem(self) -> tuple[bytes, bytes]:
        """Return the certificate (public) and the private key (secret, not encrypted), PEM."""
        return self.certificate_pem, private_pem(self._key)

    @property
    def certificate_pem(self) -> bytes:
        """The authority's own certificate: the root that both ends verify with."""
        return self._certificate.public_bytes(Encoding.PEM)

    @property
    def federation(self) -> str:
        """The name of the federation."""
        return federations_of(self._certificate)[0]

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the authority's certificate, to pin."""
        return certificate_fingerprint(self.certificate_pem)

    @property
    def begins(self) -> datetime:
        """When its certificate becomes valid."""
        return self._certificate.not_valid_before_utc

    @property
    def ends(self) -> datetime:
        """When its certificate expires. Every certificate that it issued expires before."""
        return self._certificate.not_valid_after_utc

    def issued(self, certificate_pem: bytes) -> bool:
        """Return whether this authority issued the certificate. Raises KeyFault if unreadable."""
        return issued_by(parse_certificate(certificate_pem), self._certificate)

    def vouch(self, newer: Self, now: datetime) -> bytes:
        """Certify the next authority's key with this one's (RFC 4210, 4.4); return that, PEM.

        A party that trusts this authority can then trust the newer one. Raises KeyFault if the
        newer one belongs to another federation.
        """
        if newer.federation != self.federation:
            raise KeyFault("A transport authority cannot vouch for one of another federation")
        certificate, key = newer._certificate, newer._key.public_key()
        builder = (
            _authority_builder(certificate.subject, self._certificate.subject, key)
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(min(self.ends, newer.ends))
            .add_extension(self._key_identifier(), critical=False)
        )
        return builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM)

    def issue(
        self,
        public_key_pem: bytes,
        *,
        country: str,
        role: Role,
        now: datetime,
        lifetime: timedelta,
        hosts: Sequence[str] = (),
    ) -> bytes:
        """Issue a certificate for a P-256 key, valid from five minutes ago, and return it, PEM.

        With `hosts` (DNS names or IP addresses; coordinator only) it is a server certificate,
        without them a client certificate; neither can be used as the other. Raises KeyFault for an
        invalid name, another kind of key, and a lifetime that is not positive or ends after the
        authority.
        """
        _require(re.compile(COUNTRY), country, "an ISO 3166-1 alpha-2 country code")
        _check_hosts_belong(role, hosts)
        self._check_lifetime(now, lifetime)
        uri = x509.UniformResourceIdentifier(f"pratique://{self.federation}/{country}/{role}")
        usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        names = x509.SubjectAlternativeName([uri, *map(_host, hosts)])
        builder = (
            _builder(
                f"{country} {role}", self._certificate.subject, parse_public_key(public_key_pem)
            )
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(names, critical=False)
            .add_extension(self._key_identifier(), critical=False)
        )
        return builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM)

    def _check_lifetime(self, now: datetime, lifetime: timedelta) -> None:
        end = (now + lifetime).replace(microsecond=0)  # X.509 has whole seconds only
        if lifetime <= timedelta(0) or end > self._certificate.not_valid_after_utc:
            raise KeyFault(
                "A certificate cannot have this lifetime",
                why="it must end in the future, and not after its authority ends on "
                f"{self._certificate.not_valid_after_utc:%Y-%m-%d}",
                fix="choose a shorter lifetime, or make a new authority",
            )

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())


def peer_of(
    certificate_pem: bytes, *, authority_pem: bytes, now: datetime, revoked: Container[int]
) -> Peer:
    """Return the party that a certificate names, if `authority_pem` issued it and it is valid.

    `authority_pem` has one authority, or two during an overlap (keys/succession.py). `revoked` has
    serial numbers. The TLS handshake proves possession of the key. Raises KeyFault if the
    certificate is unreadable, issued by another authority, not yet valid, expired or revoked, or
    if it does not name exactly one party.
    """
    certificate = parse_certificate(certificate_pem)
    _check_issued(certificate, parse_certificates(authority_pem))
    _check_current(certificate, now)
    if certificate.serial_number in revoked:
        raise _refused("it was revoked", "ask the coordinator for a new one")
    federation, country, role = _named(certificate)
    return Peer(
        federation, country, role, certificate.serial_number, certificate.not_valid_after_utc
    )


def certificate_fingerprint(certificate_pem: bytes) -> str:
    """Return `sha256:<hex>` of the certificate's DER form. Raises KeyFault if unreadable.

    It identifies one file and not its holder: anyone can write an ECDSA signature in another valid
    form. Revocation uses serial numbers.
    """
    der = parse_certificate(certificate_pem).public_bytes(Encoding.DER)
    return "sha256:" + hashlib.sha256(der).hexdigest()


def new_transport_key() -> bytes:
    """Return a new P-256 private key, PEM (PKCS 8, not encrypted)."""
    return private_pem(ec.generate_private_key(ec.SECP256R1()))


def public_pem(key_pem: bytes) -> bytes:
    """Return the public key of a P-256 private key, PEM. Raises KeyFault for anything else."""
    return pem_of_public(parse_private_key(key_pem).public_key())


def new_node_auth_key() -> tuple[bytes, str]:
    """Return a new P-384 private key, PEM (PKCS 8), and its OpenSSH public line.

    A node signs in with it to the SuperLink behind the relay, which accepts P-256 and P-384 only.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return private_pem(key), line.decode()


def _self_signed(
    federation: str, key: ec.EllipticCurvePrivateKey, now: datetime
) -> x509.Certificate:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, federation),
            x509.NameAttribute(NameOID.COMMON_NAME, "Pratique transport authority"),
        ]
    )
    builder = (
        _authority_builder(name, name, key.public_key())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + AUTHORITY_LIFETIME)
    )
    return builder.sign(key, SHA256())


def _authority_builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(issuer_name=issuer, subject_name=subject, public_key=key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def federations_of(authority: x509.Certificate) -> list[str]:
    """Return the federations that an authority's certificate names: one, if it is valid."""
    names = authority.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return [str(name.value) for name in names]


def _builder(
    common_name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateBuilder(issuer_name=issuer, subject_name=subject, public_key=key)
    return builder.serial_number(x509.random_serial_number())


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _require(pattern: re.Pattern[str], text: str, meaning: str) -> None:
    if not pattern.fullmatch(text):  # unchecked text could add another name to a certificate
        raise KeyFault(f"The text {text!r} is not {meaning}", fix=f"write {meaning}")


def _check_hosts_belong(role: Role, hosts: Sequence[str]) -> None:
    if hosts and role is not Role.COORDINATOR:
        raise KeyFault(
            f"A certificate for the role {role} cannot name hosts",
            why="its holder could pretend to be the exchange",
        )


def is_host(text: str) -> bool:
    """Return whether a certificate can name this host: an IP address, or a name of letters."""
    try:
        _host(text)
    except KeyFault:
        return False
    return True


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        _require(HOST_NAME, host, "a host name or an IP address")
        return x509.DNSName(host)


def _check_issued(certificate: x509.Certificate, authorities: Sequence[x509.Certificate]) -> None:
    if not any(issued_by(certificate, authority) for authority in authorities):
        raise _refused(
            "it was not issued by this federation's authority", "enrol with this federation"
        )


def issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Return whether the authority's key signed the certificate, in the authority's name."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _check_current(certificate: x509.Certificate, now: datetime) -> None:
    if now < certificate.not_valid_before_utc:
        raise _refused("it is not valid yet", "check the clocks of both machines")
    if now >= certificate.not_valid_after_utc:
        raise _refused("it has expired", "enrol again for a new one")


def _named(certificate: x509.Certificate) -> tuple[str, str, Role]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        (uri,) = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
        federation, country, role = _matched(uri)
        return federation, country, Role(role)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        raise _refused(
            "it does not name one country and role", "enrol again for a new one"
        ) from None


def _matched(uri: str) -> tuple[str, ...]:
    match = PEER_URI.fullmatch(uri)
    return match.groups() if match else ()


def _refused(why: str, fix: str) -> KeyFault:
    return KeyFault("A transport certificate is refused", why=why, fix=fix)
