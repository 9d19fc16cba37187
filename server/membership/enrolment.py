"""Enrolment of the parties: requests that wait for approval, admissions, revocations.

A token is valid for one request. The same request may be sent again to learn its status; another
request with the same token is refused. A person admits a party by its fingerprint. The authority
vouches for the transport only; identity keys are trusted through documents.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key
from sqlalchemy import Connection, Engine, Row, insert, select, update

from governance.runtime.database import transaction
from keys.certificates import Role
from keys.composite import halves
from keys.renewal import serial_of
from protocols.errors import ProtocolFault
from protocols.proto.exchange_pb2 import EnrolReply, EnrolRequest
from protocols.wire.invitation import (
    Invitation,
    Statement,
    enrolment_fingerprint,
)
from server.errors import CoordinatorFault
from server.membership.certificates import CertificateRegister
from server.membership.invitations import Invitations
from server.state.tables import enrolments, parties

PENDING, ADMITTED, REFUSED, REVOKED = "pending", "admitted", "refused", "revoked"
MAX_KEY = 4096
"""The largest public key as text, in bytes."""
TRANSPORT_CURVES = (ec.SECP256R1,)
SUPERLINK_CURVES = (ec.SECP256R1, ec.SECP384R1)
SIGNING_KEYS = ("document_key", "identity_key", "log_key")


@dataclass(frozen=True)
class Enrolment:
    """A request for admission and its status."""

    id: str
    country: str
    role: Role
    statement: Statement
    fingerprint: str
    status: str


class EnrolmentService:
    """Invites, admits and revokes parties, in the coordinator's state database."""

    def __init__(self, engine: Engine, register: CertificateRegister) -> None:
        self._engine, self.register = engine, register
        self.invitations = Invitations(engine, register)

    def invite(
        self, country: str, role: Role, *, exchange: str, root_digest: str | None, now: datetime
    ) -> Invitation:
        """Return a new invitation for one party of `country`."""
        return self.invitations.create(
            country, role, exchange=exchange, root_digest=root_digest, now=now
        )

    def enrol(self, country: str, request: EnrolRequest, now: datetime) -> EnrolReply:
        """Store a new request or return its status; `country` is that of the certificate."""
        statement = Statement.from_bytes(request.statement)
        _check_keys(request.transport_key, statement)
        identifier = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
        with transaction(self._engine) as connection:
            row = connection.execute(
                select(enrolments).where(enrolments.c.id == identifier)
            ).one_or_none()
            if row is None:
                self.invitations.use(connection, country, statement, request.token, now)
                fingerprint = enrolment_fingerprint(request.transport_key, request.statement)
                connection.execute(
                    insert(enrolments).values(
                        id=identifier,
                        country=country,
                        role=statement.role,
                        request=request.SerializeToString(deterministic=True),
                        fingerprint=fingerprint,
                        status=PENDING,
                        created=now,
                    )
                )
                return EnrolReply(status=EnrolReply.PENDING, fingerprint=fingerprint)
        return _reply(row)

    def all(self) -> list[Enrolment]:
        """Return every request for admission, oldest first."""
        with transaction(self._engine) as connection:
            rows = connection.execute(select(enrolments).order_by(enrolments.c.created)).all()
        return [_enrolment(row) for row in rows]

    def admit(self, fingerprint: str, now: datetime) -> Enrolment:
        """Issue the certificate of the pending request with this fingerprint."""
        with transaction(self._engine) as connection:
            row = self._pending(connection, fingerprint)
            _check_own_keys(_enrolment(row), _admitted(connection))
            key, role = EnrolRequest.FromString(row.request).transport_key, Role(row.role)
            certificate = self.register.issue(connection, key, row.country, role, now)
            if role is Role.NODE:  # a country has one node; it may have several officers
                earlier = self._serials(connection, row.country, role)
                self.register.supersede(
                    connection,
                    earlier,
                    country=row.country,
                    role=role,
                    certificate=certificate,
                    now=now,
                )
            connection.execute(
                update(enrolments)
                .where(enrolments.c.id == row.id)
                .values(status=ADMITTED, certificate=certificate)
            )
        self.register.reload()
        return replace(_enrolment(row), status=ADMITTED)

    def refuse(self, fingerprint: str) -> None:
        """Refuse the pending request with this fingerprint."""
        with transaction(self._engine) as connection:
            row = self._pending(connection, fingerprint)
            connection.execute(
                update(enrolments).where(enrolments.c.id == row.id).values(status=REFUSED)
            )

    def _pending(self, connection: Connection, fingerprint: str) -> Row[Any]:
        """Return the newest pending request: after two invitations there can be two."""
        condition = enrolments.c.fingerprint == fingerprint.strip().lower()
        pending = select(enrolments).where(condition & (enrolments.c.status == PENDING))
        newest = pending.order_by(enrolments.c.created.desc()).limit(1)
        row = connection.execute(newest).one_or_none()
        if row is None:
            raise CoordinatorFault(
                f"No request with the fingerprint {fingerprint} waits for approval",
                why="it was mistyped, was already decided, or has not arrived",
                fix="compare it with the output of the party's command; `admit --list` shows all "
                "requests",
            )
        return row

    def admitted(self, role: Role) -> list[Statement]:
        """Return the newest admitted statement of each country in a role."""
        statements = {
            enrolment.country: enrolment.statement
            for enrolment in self.all()
            if (enrolment.status, enrolment.role) == (ADMITTED, role)
        }
        return list(statements.values())

    def revoke(self, country: str, role: Role, now: datetime) -> Sequence[int]:
        """Revoke every certificate of a country's role; return their serial numbers.

        Their calls in progress end. The party needs a new invitation to be admitted again.
        """
        of_party = (enrolments.c.country == country) & (enrolments.c.role == role)
        admitted = of_party & (enrolments.c.status == ADMITTED)
        with transaction(self._engine) as connection:
            serials = self._serials(connection, country, role)
            self.register.revoke(connection, serials)
            connection.execute(update(enrolments).where(admitted).values(status=REVOKED))
            connection.execute(
                update(parties)
                .where((parties.c.country == country) & (parties.c.role == role))
                .values(revoked=now)
            )
        self.register.reload()
        return serials

    def _serials(self, connection: Connection, country: str, role: Role) -> list[int]:
        condition = (enrolments.c.country == country) & (enrolments.c.role == role)
        rows = connection.execute(select(enrolments.c.certificate).where(condition)).scalars()
        admitted = [serial_of(certificate) for certificate in rows if certificate]
        return list({*admitted, *self.register.renewed(connection, country, role)})


def _check_keys(transport_key: bytes, statement: Statement) -> None:
    """Raise ProtocolFault for unusable keys, before the request uses its token."""
    _check_curve(load_pem_public_key, transport_key, TRANSPORT_CURVES, "its transport key")
    if statement.node_auth is not None:
        line = statement.node_auth.encode()
        _check_curve(load_ssh_public_key, line, SUPERLINK_CURVES, "its SuperLink key")


def _check_curve(
    load: Callable[[bytes], Any], text: bytes, curves: tuple[type[ec.EllipticCurve], ...], what: str
) -> None:
    try:
        key = load(text) if len(text) <= MAX_KEY else None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, curves):
        raise ProtocolFault(
            "The enrolment was not accepted",
            why=f"{what} has a form that is not supported",
            fix="enrol with the command of the coordinator's version; the invitation stays valid",
        )


def _admitted(connection: Connection) -> list[Enrolment]:
    query = select(enrolments).where(enrolments.c.status.in_((ADMITTED, REVOKED)))
    return [_enrolment(row) for row in connection.execute(query).all()]


def _check_own_keys(requested: Enrolment, others: Sequence[Enrolment]) -> None:
    """Raise CoordinatorFault if the request states a key of another country.

    A party with another country's key would count twice, or block that country's registration.
    """
    for other in others:
        if other.country != requested.country and _keys_of(requested) & _keys_of(other):
            raise CoordinatorFault(
                f"The {requested.role} of {requested.country} cannot be admitted",
                why=f"it states a key of the {other.role} of {other.country}",
                fix="refuse it, and ask both parties why they have the same key",
            )


def _keys_of(enrolment: Enrolment) -> frozenset[str | bytes]:
    stated = (getattr(enrolment.statement, name) for name in SIGNING_KEYS)
    raw = frozenset(half for key in stated if key for half in halves(key))
    line = (enrolment.statement.node_auth or "").split()[:2]  # without the key's comment
    return raw | ({" ".join(line)} if line else set())


def _reply(row: Row[Any]) -> EnrolReply:
    status = {
        PENDING: EnrolReply.PENDING,
        ADMITTED: EnrolReply.ADMITTED,
        REFUSED: EnrolReply.REFUSED,
        REVOKED: EnrolReply.REFUSED,
    }[row.status]
    certificate = row.certificate if row.status == ADMITTED else b""
    return EnrolReply(status=status, fingerprint=row.fingerprint, certificate=certificate)


def _enrolment(row: Row[Any]) -> Enrolment:
    request = EnrolRequest.FromString(row.request)
    statement = Statement.from_bytes(request.statement)
    return Enrolment(row.id, row.country, Role(row.role), statement, row.fingerprint, row.status)
