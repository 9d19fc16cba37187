"""Succession of transport authorities: parties know the next one long before it issues.

Two years before an authority ends, the next one is created, and the old one certifies its key. For
180 days parties receive the new one with their renewals; from then on it issues. The old one is
trusted for another 120 days, until all that it issued has expired, and is then destroyed. A party
trusts a newer authority only with the signature of one that it already trusts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from cryptography import x509

from keys.certificates import TransportAuthority, federations_of, issued_by
from keys.errors import KeyFault
from keys.pem import parse_certificate, parse_certificates, pem_of_certificate

BEFORE_THE_END = timedelta(days=730)
NOTICE = timedelta(days=180)
"""Twice the lifetime of a party's certificate: each active party renews within this time."""
OVERLAP = timedelta(days=120)
"""Longer than the lifetime of a party's certificate."""


@dataclass(frozen=True)
class Generation:
    """An authority, and its key certified by the one before it (PEM; empty for the first)."""

    authority: TransportAuthority
    voucher: bytes = b""


@dataclass(frozen=True)
class AuthorityLine:
    """The authorities of one federation that have not ended yet, oldest first; at least one."""

    generations: tuple[Generation, ...]

    @classmethod
    def of(cls, authority: TransportAuthority) -> Self:
        """Return the line of a federation that has had one authority so far."""
        return cls((Generation(authority),))

    def in_force(self, now: datetime) -> TransportAuthority:
        """Return the authority that issues certificates now."""
        numbers = range(1, len(self.generations))
        newest = max((n for n in numbers if now >= self._begins(n)), default=0)
        return self.generations[newest].authority

    def trusted(self, now: datetime) -> bytes:
        """Return all trusted authorities, PEM, oldest first."""
        trusted = self.generations[self.retired(now) :]
        return b"".join(generation.authority.certificate_pem for generation in trusted)

    def vouchers(self, now: datetime) -> bytes:
        """Return the certificates by which trusted authorities vouch for newer ones, PEM."""
        newer = self.generations[self.retired(now) + 1 :]
        return b"".join(generation.voucher for generation in newer)

    def retired(self, now: datetime) -> int:
        """Return how many authorities, counted from the oldest, are no longer trusted."""
        followed = range(1, len(self.generations))
        return sum(now >= self._begins(n) + OVERLAP for n in followed)

    def next_is_due(self, now: datetime) -> bool:
        """Return whether it is time to create the next authority."""
        return now >= self.generations[-1].authority.ends - BEFORE_THE_END

    def extended(self, now: datetime) -> Self:
        """Return the line with a new authority, for which the newest one vouches if it is valid.

        If that one has expired, no party can accept the new one: every party enrols again.
        """
        newest = self.generations[-1].authority
        created = TransportAuthority.create(newest.federation, now)
        voucher = newest.vouch(created, now) if now < newest.ends else b""
        return type(self)((*self.generations, Generation(created, voucher)))

    def _begins(self, number: int) -> datetime:
        """Return when an authority begins to issue: half-way to the older one's end, if sooner."""
        older, newer = (pair.authority for pair in self.generations[number - 1 : number + 1])
        return newer.begins + min(NOTICE, (older.ends - newer.begins) / 2)


def followed(trusted_pem: bytes, offered_pem: bytes, vouchers_pem: bytes, now: datetime) -> bytes:
    """Check the authorities that the exchange offers, and return them as those to trust, PEM.

    Each must be trusted already, or a trusted one must vouch for it. Raises KeyFault otherwise,
    and if none is offered.
    """
    trusted = [old for old in parse_certificates(trusted_pem) if _is_valid(old, now)]
    offered = parse_certificates(offered_pem)
    vouchers = parse_certificates(vouchers_pem) if vouchers_pem else []
    for authority in offered:
        if authority not in trusted:
            _check_vouched(authority, trusted, vouchers, now)
            trusted.append(authority)
    return b"".join(map(pem_of_certificate, offered))


def issuer_among(authorities_pem: bytes, certificate_pem: bytes) -> bytes:
    """Return the authority that issued the certificate, PEM. Raises KeyFault if none did."""
    certificate = parse_certificate(certificate_pem)
    for authority in parse_certificates(authorities_pem):
        if issued_by(certificate, authority):
            return pem_of_certificate(authority)
    raise KeyFault("None of the known transport authorities issued this certificate")


def _check_vouched(
    newer: x509.Certificate,
    trusted: Sequence[x509.Certificate],
    vouchers: Sequence[x509.Certificate],
    now: datetime,
) -> None:
    if not (issued_by(newer, newer) and _is_valid(newer, now)):
        raise _untrusted("it is not valid at this time, or was changed")
    if not any(_vouches(old, voucher, newer) for old in trusted for voucher in vouchers):
        raise _untrusted("no authority that is trusted here vouches for it")


def _vouches(old: x509.Certificate, voucher: x509.Certificate, newer: x509.Certificate) -> bool:
    """Return whether `voucher` is the key of `newer`, certified by `old` as an authority's.

    Every party has a certificate that `old` issued, but only an authority's can vouch.
    """
    return (
        _is_authority(voucher)
        and federations_of(old) == federations_of(newer)
        and voucher.public_key() == newer.public_key()
        and issued_by(voucher, old)
    )


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return False
    return extension.value.ca


def _is_valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


def _untrusted(why: str) -> KeyFault:
    return KeyFault(
        "The exchange offers a transport authority that cannot be trusted",
        why=why,
        fix="nothing was changed; ask the coordinator for a new invitation, and compare its digest",
    )
