"""The register of certificates: which are revoked or replaced, and who may renew one.

A certificate is renewed once. The same request gets the same reply, so that a reply that was lost
can be requested again. A request with another key for the same certificate means that two parties
have its key; a person must find out why. The old certificate ends when the new one is used, so
two certificates of one renewal are never valid side by side for long.

Which machine acts for a node is decided elsewhere (`server.exchange.fencing`), and passed in. Only
a session that acts for the node gets a certificate issued. If two machines have the identity, it is
unknown which one renewed: then the old certificate stays valid until it ends or is revoked.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NoReturn, Protocol

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select, update

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
"""How long a replaced certificate is valid for every call while its successor is not used; after
that it is valid only for requesting the successor again."""
SETTLING = timedelta(minutes=2)
"""How long it is still valid after the first use of its successor, so that calls in progress can
end."""
DAY = timedelta(days=1)
MAX_RENEWALS = 4
"""The most renewals for one country and role within a day."""
RENEW = "Renew"
_REPLACED_COLUMNS = ("successor", "created", "used", "disputed", "public_key", "kept")


class Authorities(Protocol):
    """The transport authorities of the federation; `keys.succession.AuthorityLine` is one."""

    def in_force(self, now: datetime) -> TransportAuthority:
        """Return the authority that issues certificates."""

    def trusted(self, now: datetime) -> bytes:
        """Return all trusted authorities, PEM."""

    def vouchers(self, now: datetime) -> bytes:
        """Return the certificates with which older authorities vouch for newer ones, PEM."""


@dataclass(frozen=True)
class Dispute:
    """A certificate that two parties have presented."""

    country: str
    role: str
    since: datetime


@dataclass(frozen=True)
class _Replaced:
    """A replaced certificate; `used` is the time of its successor's first call."""

    successor: int
    created: datetime
    used: datetime | None
    disputed: datetime | None
    key: bytes
    kept: datetime | None

    def serves(self, call: str, now: datetime) -> bool:
        """Return whether the replaced certificate is still valid for this call."""
        if self.kept is not None:
            return True
        if self.used is not None:
            return now < self.used + SETTLING
        return call == RENEW or now < self.created + UNUSED_FOR


@dataclass(frozen=True)
class Renewer:
    """What is known about the caller that renews a certificate."""

    acts: bool = True
    """Whether it may have one issued; a node's session must act for the node."""
    disputed: bool = False
    """Whether two machines have its identity."""


Acted = Callable[[str], bool]
"""Whether the caller's session acts, or acted before, for the node of a country."""
Disputed = Callable[[str], bool]
"""Whether two machines have the identity of a country's node."""
Note = Callable[[EventKind, str], None]
"""Appends an event of this kind about this party to the audit log."""


class CertificateRegister:
    """The certificates of all parties, in the coordinator's state database.

    Safe to use from several threads.
    """

    def __init__(self, engine: Engine, authorities: Authorities, *, note: Note) -> None:
        self._engine, self._note = engine, note
        self.authorities = authorities
        self._lock = threading.Lock()
        self._listeners: list[Callable[[frozenset[int]], None]] = []
        self._load()

    def _load(self) -> None:
        """Read the committed rows, so that calls are decided without a database query."""
        columns = [renewals.c[name] for name in ("serial", *_REPLACED_COLUMNS)]
        with transaction(self._engine) as connection:
            serials = connection.execute(select(revoked.c.serial)).scalars().all()
            rows = connection.execute(select(*columns)).all()
        self._revoked = frozenset(map(int, serials))
        self._replaced = {
            int(row.serial): _Replaced(
                int(row.successor),
                row.created,
                row.used,
                row.disputed,
                row.public_key,
                row.kept,
            )
            for row in rows
        }
        self._unused = {
            replaced.successor for replaced in self._replaced.values() if replaced.used is None
        }

    def on_revoked(self, listener: Callable[[frozenset[int]], None]) -> None:
        """Call `listener` with the serial numbers of each later revocation."""
        self._listeners.append(listener)

    def peer(
        self,
        certificate_pem: bytes,
        call: str,
        now: datetime,
        acted: Acted = lambda _: False,
        *,
        disputed: Disputed = lambda _: False,
    ) -> Peer:
        """Return the party that a certificate names, if it is valid for this call.

        A replaced certificate is valid again if a node shows it whose process acted before: the
        process runs, so another machine uses the new one. If nobody has used that, the node may
        just not have it: then only this process is served. Raises KeyFault if it is not valid.
        """
        peer = peer_of(
            certificate_pem,
            authority_pem=self.authorities.trusted(now),
            now=now,
            revoked=self._revoked,
        )
        replaced = self._replaced.get(peer.serial)
        if replaced is not None and not replaced.serves(call, now):
            if not (peer.role is Role.NODE and replaced.key and acted(peer.country)):
                self._refuse_replaced(peer, replaced, now)
            if replaced.used is not None:
                self._dispute(peer, now)
            if replaced.used is not None or disputed(peer.country):
                self._keep(peer, now)
        if peer.serial in self._unused:
            self._note_first_use(peer.serial, now)
        return peer

    def renew(
        self, peer: Peer, request: RenewRequest, now: datetime, renewer: Renewer = Renewer()
    ) -> RenewReply:
        """Replace the certificate that `peer` presents. Raises ProtocolFault, KeyFault.

        The same request gets the same reply, whoever sends it: nothing changes.
        """
        key = proven_key(request.public_key, request.proof, peer.serial)
        replacement = self._replacement(peer, key, now, renewer)
        if not replacement.public_key:
            raise _refused(
                "a new admission replaces it", "run `enrol` again, which finishes the admission"
            )
        if replacement.public_key != key:
            self._dispute(peer, now)
            raise ProtocolFault(
                "This certificate was already renewed, with another key",
                why="two programs have its key, or this program was restored from an old copy",
                fix="notify the coordinator, who revokes it; then enrol with a new invitation",
            )
        return RenewReply(
            certificate=replacement.certificate,
            authority=self.authorities.trusted(now),
            succession=self.authorities.vouchers(now),
        )

    def _replacement(self, peer: Peer, key: bytes, now: datetime, renewer: Renewer) -> Row[Any]:
        """Return the row of the certificate that replaces this one; issue it if there is none."""
        query = select(renewals).where(renewals.c.serial == str(peer.serial))
        with self._lock, transaction(self._engine) as connection:
            existing = connection.execute(query).one_or_none()
            if existing is not None:
                return existing
            _check_may_renew(connection, peer, now, renewer)
            certificate = self.issue(connection, key, peer.country, peer.role, now)
            row = _row(peer.country, peer.role, key, certificate, now)
            kept = now if renewer.disputed else None
            values = insert(renewals).values(serial=str(peer.serial), kept=kept, **row)
            connection.execute(values)
            issued = connection.execute(query).one()
        self.reload()
        self._note(EventKind.CERTIFICATE_RENEWED, f"{peer.country} {peer.role}")
        return issued

    def issue(
        self, connection: Connection, key: bytes, country: str, role: Role, now: datetime
    ) -> bytes:
        """Issue a certificate for a party, and store that the party is admitted."""
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
        """Store that a newly admitted certificate replaces these; `reload` must follow."""
        row = _row(country, role, b"", certificate, now)
        ended = {serial for serial, replaced in self._replaced.items() if replaced.kept is None}
        for serial in set(serials) - self._revoked - ended:
            connection.execute(delete(renewals).where(renewals.c.serial == str(serial)))
            connection.execute(insert(renewals).values(serial=str(serial), **row))

    def revoke(self, connection: Connection, serials: Iterable[int]) -> None:
        """Store revocations; `reload` must follow."""
        for serial in set(serials) - self._revoked:
            connection.execute(insert(revoked).values(serial=str(serial)))

    def reload(self) -> None:
        """Apply the committed changes to all calls, including those in progress."""
        with self._lock:
            before = self._revoked
            self._load()
            newly_revoked = self._revoked - before
        for listener in self._listeners:
            listener(newly_revoked)

    def renewed(self, connection: Connection, country: str, role: Role) -> list[int]:
        """Return the serial numbers of a party's replaced certificates, and of their successors."""
        condition = (renewals.c.country == country) & (renewals.c.role == role)
        columns = select(renewals.c.serial, renewals.c.successor).where(condition)
        return [int(serial) for row in connection.execute(columns) for serial in row]

    def disputes(self) -> list[Dispute]:
        """Return the certificates that two parties have presented and that are not revoked."""
        revoked_serials = select(revoked.c.serial)
        condition = renewals.c.disputed.is_not(None) & renewals.c.successor.not_in(revoked_serials)
        with transaction(self._engine) as connection:
            rows = connection.execute(select(renewals).where(condition)).all()
        return [Dispute(row.country, row.role, row.disputed) for row in rows]

    def _refuse_replaced(self, peer: Peer, replaced: _Replaced, now: datetime) -> NoReturn:
        if replaced.used is None:
            raise _refused(
                "it was renewed, and is valid only for requesting the new one",
                "request the new certificate again",
            )
        self._dispute(peer, now)
        raise _refused(
            "it was renewed, and the new one is in use",
            "notify the coordinator; if no other program has its key, enrol again",
        )

    def _note_first_use(self, successor: int, now: datetime) -> None:
        condition = (renewals.c.successor == str(successor)) & renewals.c.used.is_(None)
        with self._lock, transaction(self._engine) as connection:
            connection.execute(update(renewals).where(condition).values(used=now))
        self.reload()

    def _keep(self, peer: Peer, now: datetime) -> None:
        """Store that a replaced certificate stays valid."""
        condition = renewals.c.serial == str(peer.serial)
        with self._lock, transaction(self._engine) as connection:
            connection.execute(update(renewals).where(condition).values(kept=now))
        self.reload()

    def _dispute(self, peer: Peer, now: datetime) -> None:
        """Log and store a dispute, the first time; a new admission is not a second holder.

        It is logged first: if either fails, the next call repeats both.
        """
        replaced = self._replaced[peer.serial]
        if replaced.disputed is not None or not replaced.key:
            return
        self._note(EventKind.CERTIFICATE_DISPUTED, f"{peer.country} {peer.role}")
        condition = renewals.c.serial == str(peer.serial)
        with self._lock, transaction(self._engine) as connection:
            connection.execute(update(renewals).where(condition).values(disputed=now))
        self.reload()


def _row(country: str, role: Role, key: bytes, certificate: bytes, now: datetime) -> dict[str, Any]:
    return {
        "country": country,
        "role": role,
        "successor": str(serial_of(certificate)),
        "public_key": key,
        "certificate": certificate,
        "created": now,
    }


def _check_may_renew(connection: Connection, peer: Peer, now: datetime, renewer: Renewer) -> None:
    if not renewer.acts:
        raise ProtocolFault(
            "This certificate cannot be renewed now",
            why="the process that asks does not act for the node: it has not signed in since it "
            "started, or another machine has this node's identity",
            fix="do nothing, the node asks again in ten minutes; if it lasts, see why the node is "
            "not connected. A node that states no session needs the coordinator's version",
        )
    serial = revoked.c.serial == str(peer.serial)
    if connection.execute(select(revoked).where(serial)).first():
        raise _refused("it was revoked", "ask the coordinator for a new invitation")
    party = (renewals.c.country == peer.country) & (renewals.c.role == peer.role)
    recent = select(func.count()).where(party & (renewals.c.created > now - DAY))
    count = connection.execute(recent).scalar_one()
    if count >= MAX_RENEWALS:
        raise ProtocolFault(
            "This certificate cannot be renewed now",
            why=f"certificates of the {peer.role} of {peer.country} were renewed {count} times "
            "within a day",
            fix="wait a day; if it happens again, search for a second program with this key",
        )


def _refused(why: str, fix: str) -> KeyFault:
    return KeyFault("The transport certificate is refused", why=why, fix=fix)
