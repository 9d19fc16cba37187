"""What the exchange shows and whom it believes: its own certificate and the authorities, renewed.

The first authority lies in authority.pem and under `authority` in the key store; each one that
follows carries its number. An authority whose certificate is not written yet does not exist.
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
"""A user-assigned ISO 3166-1 code: the coordinator is of no country."""
SERVER_LIFETIME = timedelta(days=365)
AUTHORITY, TRANSPORT = "authority", "transport"
_NUMBER = r"authority(?:-([2-9]|[1-9][0-9]{1,3}))?"
KEY_NAME, NUMBERED = re.compile(_NUMBER), re.compile(rf"{_NUMBER}\.pem")


class ExchangeTransport:
    """The authorities and the exchange's own pair, in the coordinator's folder and in use."""

    def __init__(self, folder: Path, hosts: Sequence[str], store: KeyStore) -> None:
        """`hosts` are the names and addresses by which the exchange is reached."""
        self._folder, self._hosts, self._store = folder, hosts, store
        self._kept = KeptPair(store, TRANSPORT, folder / "exchange.pem")
        self._numbers = _numbers(folder)
        self._sweep()
        self.line = AuthorityLine(tuple(map(self._generation, self._numbers)))
        self.pair = self._kept.load()

    @property
    def certificate(self) -> bytes:
        """The certificate that the exchange shows, PEM."""
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
        """Make the first authority, and the exchange's first certificate."""
        line = AuthorityLine.of(TransportAuthority.create(federation, now))
        _write(folder, store, 1, line.generations[0])
        pair = KeptPair(store, TRANSPORT, folder / "exchange.pem")
        pair.keep(_issued(line.in_force(now), pair.next_key(), hosts, now))
        return cls(folder, hosts, store)

    def in_force(self, now: datetime) -> TransportAuthority:
        """Return the authority that issues."""
        return self.line.in_force(now)

    def trusted(self, now: datetime) -> bytes:
        """Return all authorities that are believed, PEM."""
        return self.line.trusted(now)

    def vouchers(self, now: datetime) -> bytes:
        """Return what leads from an older authority to a newer one, PEM."""
        return self.line.vouchers(now)

    def renew_due(self, now: datetime) -> list[EventKind]:
        """Renew what is due; returns what was done."""
        done = []
        if self.line.next_is_due(now):
            self._follow(now)
            done.append(EventKind.AUTHORITY_FOLLOWED)
        if self._certificate_is_due(now):
            self._renew(now)
            done.append(EventKind.CERTIFICATE_RENEWED)
        self._retire(now)
        return done

    def _follow(self, now: datetime) -> None:
        number, line = self._numbers[-1] + 1, self.line.extended(now)
        _write(self._folder, self._store, number, line.generations[-1])
        self._numbers, self.line = [*self._numbers, number], line

    def _certificate_is_due(self, now: datetime) -> bool:
        """A certificate of an authority that issues no longer is replaced at once."""
        issuer = self.in_force(now)
        return renewal_due(self.certificate, now, 0.0) or not issuer.issued(self.certificate)

    def _renew(self, now: datetime) -> None:
        self._kept.keep(_issued(self.in_force(now), self._kept.next_key(), self._hosts, now))
        self.pair = self._kept.load()  # at once: another thread may open a connection

    def _retire(self, now: datetime) -> None:
        """Destroy the authorities that are not believed any more, key and all."""
        for _ in range(self.line.retired(now)):
            number, *self._numbers = self._numbers
            self.line = AuthorityLine(self.line.generations[1:])
            for place in _files(self._folder, number):
                place.unlink(missing_ok=True)
        self._sweep()

    def _sweep(self) -> None:
        """Remove keys of authorities that are not, or were not finished before a crash."""
        held = {_key_name(number) for number in self._numbers}
        for name in self._store.names():
            if KEY_NAME.fullmatch(name) and name not in held:
                self._store.delete(name)

    def _generation(self, number: int) -> Generation:
        certificate, voucher = (place for place in _files(self._folder, number))
        key = self._store.get(_key_name(number))
        authority = TransportAuthority.from_pem(certificate.read_bytes(), key)
        return Generation(authority, voucher.read_bytes() if voucher.exists() else b"")


def _numbers(folder: Path) -> list[int]:
    found = (NUMBERED.fullmatch(place.name) for place in folder.glob("authority*.pem"))
    return sorted(int(one[1] or 1) for one in found if one)


def _files(folder: Path, number: int) -> tuple[Path, Path]:
    """Return where an authority's certificate lies, and what the one before it vouches with."""
    name = _key_name(number)
    return folder / f"{name}.pem", folder / f"{name}-voucher.pem"


def _key_name(number: int) -> str:
    return AUTHORITY if number == 1 else f"{AUTHORITY}-{number}"


def _write(folder: Path, store: KeyStore, number: int, made: Generation) -> None:
    """Keep a new authority; it is one from its certificate on, which is written last."""
    certificate, key = made.authority.to_pem()
    store.put(_key_name(number), key)
    place, voucher = _files(folder, number)
    if made.voucher:
        write_atomic(voucher, made.voucher)
    write_atomic(place, certificate)


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
