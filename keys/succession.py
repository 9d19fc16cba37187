"""One transport authority after another: the next one is known long before it issues anything.

Two years before an authority ends the next one is made, and the old one certifies its key. For
180 days parties come to know it with their renewals; from then on it issues. The old one is
believed until what it issued has ended, and is destroyed. A party believes a newer authority only
by the signature of one that it believes already.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from cryptography import x509

from keys.certificates import TransportAuthority, federations_of, issued_by
from keys.errors import KeyFault
from keys.pem import parsed_certificate, parsed_certificates, pem_of_certificate

BEFORE_THE_END = timedelta(days=730)
NOTICE = timedelta(days=180)
"""Twice the life of a party's certificate: each live party has renewed within it."""
OVERLAP = timedelta(days=120)
"""Longer than a party's certificate lives."""


@dataclass(frozen=True)
class Generation:
    """An authority, and its key as the one before it certified it (PEM; none for the first)."""

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
        """Return the authority that issues."""
        issuing = [one for n, one in enumerate(self.generations) if not n or now >= self._begins(n)]
        return issuing[-1].authority

    def trusted(self, now: datetime) -> bytes:
        """Return all that are believed, PEM, oldest first."""
        kept = self.generations[self.retired(now) :]
        return b"".join(one.authority.certificate_pem for one in kept)

    def vouchers(self, now: datetime) -> bytes:
        """Return what leads from an older authority that is believed to a newer one, PEM."""
        kept = self.generations[self.retired(now) + 1 :]
        return b"".join(one.voucher for one in kept)

    def retired(self, now: datetime) -> int:
        """Return how many, from the oldest on, are not believed any more."""
        followed = range(1, len(self.generations))
        return sum(now >= self._begins(n) + OVERLAP for n in followed)

    def next_is_due(self, now: datetime) -> bool:
        """Return whether the next authority is due."""
        return now >= self.generations[-1].authority.ends - BEFORE_THE_END

    def extended(self, now: datetime) -> Self:
        """Return the line with a new authority, for which the newest one vouches if it can.

        Where that one has ended already, nobody can follow: every party enrols again.
        """
        newest = self.generations[-1].authority
        made = TransportAuthority.create(newest.federation, now)
        voucher = newest.vouch(made, now) if now < newest.ends else b""
        return type(self)((*self.generations, Generation(made, voucher)))

    def _begins(self, number: int) -> datetime:
        """When an authority begins to issue: half-way to the older one's end, if that is sooner."""
        older, newer = (one.authority for one in self.generations[number - 1 : number + 1])
        return newer.begins + min(NOTICE, (older.ends - newer.begins) / 2)


def followed(held_pem: bytes, offered_pem: bytes, vouchers_pem: bytes, now: datetime) -> bytes:
    """Return the authorities to trust from now on, of those that the exchange offers.

    Each one is held already, or a trusted one vouches for it. Raises KeyFault if one is neither,
    and if nothing is offered.
    """
    believed = [one for one in parsed_certificates(held_pem) if _holds(one, now)]
    offered = parsed_certificates(offered_pem)
    vouchers = parsed_certificates(vouchers_pem) if vouchers_pem else []
    for one in offered:
        if one not in believed:
            _check_vouched(one, believed, vouchers, now)
            believed.append(one)
    return b"".join(map(pem_of_certificate, offered))


def issuer_among(authorities_pem: bytes, certificate_pem: bytes) -> bytes:
    """Return which of the authorities issued the certificate, PEM. Raises KeyFault for none."""
    certificate = parsed_certificate(certificate_pem)
    for one in parsed_certificates(authorities_pem):
        if issued_by(certificate, one):
            return pem_of_certificate(one)
    raise KeyFault("None of the transport authorities that are held issued this certificate")


def _check_vouched(
    newer: x509.Certificate,
    believed: Sequence[x509.Certificate],
    vouchers: Sequence[x509.Certificate],
    now: datetime,
) -> None:
    if not (issued_by(newer, newer) and _holds(newer, now)):
        raise _strange("it does not hold at this time, or was changed")
    if not any(_vouches(old, one, newer) for old in believed for one in vouchers):
        raise _strange("no authority that is believed here vouches for it")


def _vouches(old: x509.Certificate, voucher: x509.Certificate, newer: x509.Certificate) -> bool:
    """Only an authority's certificate vouches: every party has one of the other kind."""
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


def _holds(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


def _strange(why: str) -> KeyFault:
    return KeyFault(
        "The exchange offers a transport authority that cannot be believed",
        why=why,
        fix="nothing was changed; ask the coordinator for a new invitation, and compare its digest",
    )
