"""Which certificates hold: revoked ones, replaced ones, and who may have the next one.

A certificate is renewed once. The same request gets the same reply, so that one that was lost on
the way can be asked for again; another key for the same certificate means that two parties hold
its key, and a person has to find out why. The old one ends when the new one is used: no two
certificates of one renewal stay alive side by side.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NoReturn, Protocol

from sqlalchemy import Connection, Engine, func, insert, select, update

from governance.audit.events import EventKind
from governance.runtime.database import transaction
from keys.certificates import Peer, Role, TransportAuthority, certificate_fingerprint, peer_of
from keys.errors import KeyFault
from keys.renewal import proven_key, serial_of
from protocols.errors import ProtocolFault
from protocols.proto.exchange_pb2 import RenewReply, RenewRequest
from server.state.tables import parties, renewals, revoked

CERTIFICATE_LIFETIME = timedelta(days=90)
UNUSED_FOR = timedelta(hours=24)
"""How long a replaced certificate serves for everything while its successor is not used; after
that it serves to ask for the successor again, and for nothing else."""
SETTLING = timedelta(minutes=2)
"""How long it still serves once its successor is used: calls under way end in peace."""
DAY = timedelta(days=1)
MOST_RENEWALS = 4
"""Of one country's role within a day."""
RENEW = "Renew"
_KNOWN = ("serial", "successor", "created", "used", "disputed", "public_key")


class Authorities(Protocol):
    """The transport authorities of the federation; `keys.succession.AuthorityLine` is one."""

    def in_force(self, now: datetime) -> TransportAuthority:
        """Return the authority that issues."""

    def trusted(self, now: datetime) -> bytes:
        """Return all that are believed, PEM."""

    def vouchers(self, now: datetime) -> bytes:
        """Return what leads from an older one to a newer one, PEM."""


@dataclass(frozen=True)
class Dispute:
    """Two parties have shown up with one certificate."""

    country: str
    role: str
    since: datetime


@dataclass(frozen=True)
class _Replaced:
    """What is known of a replaced certificate; `used` is when its successor first was."""

    successor: int
    created: datetime
    used: datetime | None
    disputed: datetime | None
    key: bytes

    def serves(self, call: str, now: datetime) -> bool:
        """Return whether the replaced certificate still does, for this call."""
        if self.used is not None:
            return now < self.used + SETTLING
        return call == RENEW or now < self.created + UNUSED_FOR


Note = Callable[[EventKind, str], None]
"""Takes a kind of event and whom it is about to the audit log."""


class CertificateRegister:
    """The certificates of all parties, in the coordinator's state database. Safe in threads."""

    def __init__(self, engine: Engine, authorities: Authorities, *, note: Note) -> None:
        self._engine, self._note = engine, note
        self.authorities = authorities
        self._lock = threading.Lock()
        self._listeners: list[Callable[[frozenset[int]], None]] = []
        self._load()

    def _load(self) -> None:
        """Read what is committed; every call is judged by it, without asking the database."""
        columns = [renewals.c[name] for name in _KNOWN]
        with transaction(self._engine) as connection:
            serials = connection.execute(select(revoked.c.serial)).scalars().all()
            rows = connection.execute(select(*columns)).all()
        self._revoked = frozenset(map(int, serials))
        self._replaced = {int(row.serial): _Replaced(int(row[1]), *row[2:]) for row in rows}
        self._unused = {one.successor for one in self._replaced.values() if one.used is None}

    def on_revoked(self, listener: Callable[[frozenset[int]], None]) -> None:
        """Have `listener` told of serial numbers that are revoked, as they are."""
        self._listeners.append(listener)

    def peer(self, certificate_pem: bytes, call: str, now: datetime) -> Peer:
        """Return whom a certificate names, if it holds for this call. Raises KeyFault."""
        peer = peer_of(
            certificate_pem,
            authority_pem=self.authorities.trusted(now),
            now=now,
            revoked=self._revoked,
        )
        known = self._replaced.get(peer.serial)
        if known is not None and not known.serves(call, now):
            self._refuse_replaced(peer, known, now)
        if peer.serial in self._unused:
            self._first_use(peer.serial, now)
        return peer

    def renew(self, peer: Peer, request: RenewRequest, now: datetime) -> RenewReply:
        """Replace the certificate that `peer` presents. Raises ProtocolFault, KeyFault."""
        key = proven_key(request.public_key, request.proof, peer.serial)
        held = self._replacement(peer, key, now)
        if not held.public_key:
            raise _refused("A new admission replaces it", "finish it: `enrol` once more")
        if held.public_key != key:
            self._dispute(peer, now)
            raise ProtocolFault(
                "This certificate was renewed already, with another key",
                why="two programs hold its key, or this one was restored from an old copy",
                fix="tell the coordinator, who revokes it; then enrol with a new invitation",
            )
        return RenewReply(
            certificate=held.certificate,
            authority=self.authorities.trusted(now),
            succession=self.authorities.vouchers(now),
        )

    def _replacement(self, peer: Peer, key: bytes, now: datetime) -> Any:
        """Return the row of what follows this certificate, made now if nothing does yet."""
        chosen = select(renewals).where(renewals.c.serial == str(peer.serial))
        with self._lock, transaction(self._engine) as connection:
            held = connection.execute(chosen).one_or_none()
            if held is not None:
                return held
            _check_may_renew(connection, peer, now)
            certificate = self.issue(connection, key, peer.country, peer.role, now)
            row = _row(peer.country, peer.role, key, certificate, now)
            connection.execute(insert(renewals).values(serial=str(peer.serial), **row))
            made = connection.execute(chosen).one()
        self.reload()
        self._note(EventKind.CERTIFICATE_RENEWED, f"{peer.country} {peer.role}")
        return made

    def issue(
        self, connection: Connection, key: bytes, country: str, role: Role, now: datetime
    ) -> bytes:
        """Return a new certificate for a party, and write down that it is admitted."""
        authority = self.authorities.in_force(now)
        certificate = authority.issue(
            key,
            country=country,
            role=role,
            now=now,
            lifetime=min(CERTIFICATE_LIFETIME, authority.ends - now),
        )
        row = {"fingerprint": certificate_fingerprint(certificate), "country": country}
        connection.execute(insert(parties).values(**row, role=role, admitted=now))
        return certificate

    def supersede(
        self,
        connection: Connection,
        serials: Iterable[int],
        *,
        country: str,
        role: Role,
        certificate: bytes,
        now: datetime,
    ) -> None:
        """Let a newly admitted certificate follow the party's earlier ones; then `reload`."""
        row = _row(country, role, b"", certificate, now)
        for serial in set(serials) - self._revoked - set(self._replaced):
            connection.execute(insert(renewals).values(serial=str(serial), **row))

    def revoke(self, connection: Connection, serials: Iterable[int]) -> None:
        """Write revocations down; then `reload`."""
        for serial in set(serials) - self._revoked:
            connection.execute(insert(revoked).values(serial=str(serial)))

    def reload(self) -> None:
        """Let what was committed count, for calls under way too."""
        with self._lock:
            before = self._revoked
            self._load()
            fresh = self._revoked - before
        for listener in self._listeners:
            listener(fresh)

    def renewed(self, connection: Connection, country: str, role: Role) -> list[int]:
        """Return the serial numbers that a party's renewals have brought."""
        chosen = (renewals.c.country == country) & (renewals.c.role == role)
        found = connection.execute(select(renewals.c.successor).where(chosen)).scalars()
        return [int(serial) for serial in found]

    def disputes(self) -> list[Dispute]:
        """Return the parties of whose certificates two holders showed up, until revoked."""
        ended = select(revoked.c.serial)
        chosen = renewals.c.disputed.is_not(None) & renewals.c.successor.not_in(ended)
        with transaction(self._engine) as connection:
            rows = connection.execute(select(renewals).where(chosen)).all()
        return [Dispute(row.country, row.role, row.disputed) for row in rows]

    def _refuse_replaced(self, peer: Peer, known: _Replaced, now: datetime) -> NoReturn:
        if known.used is None:
            raise _refused("It was renewed, and serves for nothing else now", "ask for it again")
        self._dispute(peer, now)
        raise _refused(
            "It was renewed, and the new one is in use",
            "where this is the only holder of its key, enrol again; tell the coordinator",
        )

    def _first_use(self, successor: int, now: datetime) -> None:
        chosen = (renewals.c.successor == str(successor)) & renewals.c.used.is_(None)
        with self._lock, transaction(self._engine) as connection:
            connection.execute(update(renewals).where(chosen).values(used=now))
        self.reload()

    def _dispute(self, peer: Peer, now: datetime) -> None:
        """Write it down and log it, the first time; a new admission is no second holder."""
        known = self._replaced[peer.serial]
        if known.disputed is not None or not known.key:
            return
        chosen = renewals.c.serial == str(peer.serial)
        with self._lock, transaction(self._engine) as connection:
            connection.execute(update(renewals).where(chosen).values(disputed=now))
        self.reload()
        self._note(EventKind.CERTIFICATE_DISPUTED, f"{peer.country} {peer.role}")


def _row(country: str, role: Role, key: bytes, certificate: bytes, now: datetime) -> dict[str, Any]:
    return {
        "country": country,
        "role": role,
        "successor": str(serial_of(certificate)),
        "public_key": key,
        "certificate": certificate,
        "created": now,
    }


def _check_may_renew(connection: Connection, peer: Peer, now: datetime) -> None:
    serial = revoked.c.serial == str(peer.serial)
    if connection.execute(select(revoked).where(serial)).first():
        raise _refused("It was revoked", "ask the coordinator for a new one")
    party = (renewals.c.country == peer.country) & (renewals.c.role == peer.role)
    recent = select(func.count()).where(party & (renewals.c.created > now - DAY))
    count = connection.execute(recent).scalar_one()
    if count >= MOST_RENEWALS:
        raise ProtocolFault(
            "This certificate is not renewed now",
            why=f"certificates of the {peer.role} of {peer.country} were renewed {count} times "
            "within a day",
            fix="wait a day; if it happens again, look for a second program with this key",
        )


def _refused(why: str, fix: str) -> KeyFault:
    return KeyFault("A transport certificate is refused", why=why, fix=fix)
