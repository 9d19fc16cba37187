"""Transport certificates of one federation: who may open a channel to its exchange."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self


class Role(StrEnum):
    """What the holder of a certificate is."""

    COORDINATOR = "coordinator"
    NODE = "node"
    OFFICER = "officer"
    ENROLMENT = "enrolment"


@dataclass(frozen=True)
class Peer:
    """Who is at the other end of a channel, as its certificate says."""

    federation: str
    country: str
    role: Role
    serial: int
    not_after: datetime


class TransportAuthority:
    """The federation's own certificate authority for mutual TLS."""

    federation: str

    @classmethod
    def create(cls, federation: str, now: datetime) -> Self:
        """Return a new authority with a fresh P-256 key."""
        raise NotImplementedError

    @classmethod
    def from_pem(cls, certificate_pem: bytes, key_pem: bytes) -> Self:
        """Return the authority that `to_pem` gave."""
        raise NotImplementedError

    def to_pem(self) -> tuple[bytes, bytes]:
        """Return the certificate (public) and the private key (secret), PEM."""
        raise NotImplementedError

    @property
    def certificate_pem(self) -> bytes:
        """The authority's own certificate: the root that both ends verify with."""
        raise NotImplementedError

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the authority's certificate, to pin."""
        raise NotImplementedError

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
        """Return a PEM certificate. `hosts` (names, addresses) makes it the exchange's own."""
        raise NotImplementedError


def peer_of(
    certificate_pem: bytes, *, authority_pem: bytes, now: datetime, revoked: Container[int]
) -> Peer:
    """Return whom a certificate of this authority names. Raises KeyFault when it does not hold."""
    raise NotImplementedError


def certificate_fingerprint(certificate_pem: bytes) -> str:
    """Return `sha256:<hex>` of the certificate's DER form."""
    raise NotImplementedError


def new_transport_key() -> bytes:
    """Return a new P-256 private key, PEM (PKCS 8, not encrypted)."""
    raise NotImplementedError


def public_pem(key_pem: bytes) -> bytes:
    """Return the public key of a private key, PEM."""
    raise NotImplementedError


def new_node_auth_key() -> tuple[bytes, bytes]:
    """Return a new P-384 private key (PEM) and its OpenSSH public line, for the SuperLink."""
    raise NotImplementedError
