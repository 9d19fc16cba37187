"""The exchange's certificate and the transport authorities: stored, renewed and retired.

The first authority is in authority.pem, its key under `authority` in the key store; the names of
later ones end with their number. An authority whose certificate is not written does not exist yet.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from governance.audit.events import EventKind
from governance.runtime.credentials import KeptPair
from governance.runtime.files import write_atomic
from keys.certificates import Role, TransportAuthority, public_pem
from keys.renewal import renewal_due
from keys.store import KeyStore
from keys.succession import AuthorityLine, Generation

REGION = "ZZ"
"""A user-assigned ISO 3166-1 code, because the coordinator belongs to no country."""
SERVER_LIFETIME = timedelta(days=365)
AUTHORITY, TRANSPORT = "authority", "transport"
_NUMBER = r"authority(?:-([2-9]|[1-9][0-9]{1,3}))?"
KEY_NAME, NUMBERED = re.compile(_NUMBER), re.compile(rf"{_NUMBER}\.pem")


class ExchangeTransport:
    """The transport authorities and the exchange's key and certificate."""

    def __init__(self, folder: Path, hosts: Sequence[str], store: KeyStore) -> None:
        """`hosts` are the names and addresses of the exchange."""
        self._folder, self._hosts, self._store = folder, hosts, store
        self._kept = KeptPair(store, TRANSPORT, folder / "exchange.pem")
        self._numbers = _numbers(folder)
        self._delete_stale_keys()
        self.line = AuthorityLine(tuple(map(self._generation, self._numbers)))
        self.pair = self._kept.load()

    @property
    def certificate(self) -> bytes:
        """The certificate that the exchange presents, PEM."""
        return self.pair[1]

    @classmethod
    def create(
        cls,
        folder: Path,
        hosts: Sequence[str],
        store: KeyStore,
        *,
        federation: str,
        now: datetime,
    ) -> Self:
        """Create the first authority and the exchange's first certificate."""
        line = AuthorityLine.of(TransportAuthority.create(federation, now))
        _write(folder, store, 1, line.generations[0])
        pair = KeptPair(store, TRANSPORT, folder / "exchange.pem")
        pair.keep(_issued(line.in_force(now), pair.next_key(), hosts, now))
        return cls(folder, hosts, store)

    def in_force(self, now: datetime) -> TransportAuthority:
        """Return the authority that issues certificates."""
        return self.line.in_force(now)

    def trusted(self, now: datetime) -> bytes:
        """Return all trusted authorities, PEM."""
        return self.line.trusted(now)

    def vouchers(self, now: datetime) -> bytes:
        """Return the certificates with which older authorities vouch for newer ones, PEM."""
        return self.line.vouchers(now)

    def renew_due(self, now: datetime) -> list[EventKind]:
        """Renew the authority and the certificate if they are due; return the events."""
        events = []
        if self.line.next_is_due(now):
            self._add_authority(now)
            events.append(EventKind.AUTHORITY_FOLLOWED)
        if self._certificate_is_due(now):
            self._renew_certificate(now)
            events.append(EventKind.CERTIFICATE_RENEWED)
        self._retire(now)
        return events

    def _add_authority(self, now: datetime) -> None:
        number, line = self._numbers[-1] + 1, self.line.extended(now)
        _write(self._folder, self._store, number, line.generations[-1])
        self._numbers, self.line = [*self._numbers, number], line

    def _certificate_is_due(self, now: datetime) -> bool:
        """Return whether the certificate is due, or its authority no longer issues."""
        issuer = self.in_force(now)
        return renewal_due(self.certificate, now, 0.0) or not issuer.issued(self.certificate)

    def _renew_certificate(self, now: datetime) -> None:
        self._kept.keep(_issued(self.in_force(now), self._kept.next_key(), self._hosts, now))
        self.pair = self._kept.load()  # in one assignment: another thread may open a connection

    def _retire(self, now: datetime) -> None:
        """Delete the authorities that are no longer trusted, with their keys."""
        for _ in range(self.line.retired(now)):
            number, *self._numbers = self._numbers
            self.line = AuthorityLine(self.line.generations[1:])
            for path in _files(self._folder, number):
                path.unlink(missing_ok=True)
        self._delete_stale_keys()

    def _delete_stale_keys(self) -> None:
        """Delete keys of authorities that are retired, or that a crash left unfinished."""
        current = {_key_name(number) for number in self._numbers}
        for name in self._store.names():
            if KEY_NAME.fullmatch(name) and name not in current:
                self._store.delete(name)

    def _generation(self, number: int) -> Generation:
        certificate, voucher = _files(self._folder, number)
        key = self._store.get(_key_name(number))
        authority = TransportAuthority.from_pem(certificate.read_bytes(), key)
        return Generation(authority, voucher.read_bytes() if voucher.exists() else b"")


def _numbers(folder: Path) -> list[int]:
    matches = (NUMBERED.fullmatch(path.name) for path in folder.glob("authority*.pem"))
    return sorted(int(match[1] or 1) for match in matches if match)


def _files(folder: Path, number: int) -> tuple[Path, Path]:
    """Return the paths of an authority's certificate and of its voucher by the former one."""
    name = _key_name(number)
    return folder / f"{name}.pem", folder / f"{name}-voucher.pem"


def _key_name(number: int) -> str:
    return AUTHORITY if number == 1 else f"{AUTHORITY}-{number}"


def _write(folder: Path, store: KeyStore, number: int, generation: Generation) -> None:
    """Store a new authority; it exists once its certificate is written, which comes last."""
    certificate, key = generation.authority.to_pem()
    store.put(_key_name(number), key)
    path, voucher = _files(folder, number)
    if generation.voucher:
        write_atomic(voucher, generation.voucher)
    write_atomic(path, certificate)


def _issued(
    authority: TransportAuthority, key: bytes, hosts: Sequence[str], now: datetime
) -> bytes:
    return authority.issue(
        public_pem(key),
        country=REGION,
        role=Role.COORDINATOR,
        now=now,
        lifetime=min(SERVER_LIFETIME, authority.ends - now),
        hosts=hosts,
    )
