"""Invitations: written for one party, used once, and over after a week or when they are revoked.

An invitation contains a certificate that is valid for enrolment only. A revocation ends the calls
that are made with it. The secret token is not stored, only its hash, which begins with the
invitation's id.
"""

import base64
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select, update

from governance.runtime.database import transaction
from keys.certificates import Role, new_transport_key, public_pem
from keys.renewal import serial_of
from protocols.errors import ProtocolFault
from protocols.wire.encoding import digest
from protocols.wire.invitation import TOKEN_BYTES, Invitation, Statement
from server.errors import CoordinatorFault
from server.membership.certificates import CertificateRegister
from server.state.tables import invitations

INVITATION_LIFETIME = timedelta(days=7)
ID_LENGTH = 12
OPEN, USED, EXPIRED, REVOKED = "open", "used", "expired", "revoked"


@dataclass(frozen=True)
class IssuedInvitation:
    """An invitation as the coordinator remembers it."""

    id: str
    country: str
    role: str
    expires: datetime
    status: str


class Invitations:
    """The invitations in the coordinator's state database."""

    def __init__(self, engine: Engine, register: CertificateRegister) -> None:
        self._engine, self._register = engine, register

    def create(
        self, country: str, role: Role, *, exchange: str, root_digest: str | None, now: datetime
    ) -> Invitation:
        """Return a new invitation for one party of `country`; store the hash of its token."""
        token, key = secrets.token_bytes(TOKEN_BYTES), new_transport_key()
        authority = self._register.authorities.in_force(now)
        certificate = authority.issue(
            public_pem(key),
            country=country,
            role=Role.ENROLMENT,
            now=now,
            lifetime=INVITATION_LIFETIME,
        )
        row = {
            "token_hash": digest(token),
            "country": country,
            "role": role,
            "created": now,
            "serial": str(serial_of(certificate)),
        }
        with transaction(self._engine) as connection:
            connection.execute(insert(invitations).values(row))
        return Invitation(
            federation=authority.federation,
            exchange=exchange,
            country=country,
            role=role.value,
            token=base64.b64encode(token).decode(),
            authority=authority.certificate_pem.decode(),
            authority_digest=authority.digest,
            root_digest=root_digest,
            certificate=certificate.decode(),
            key=key.decode(),
            expires=now + INVITATION_LIFETIME,
        )

    def use(
        self,
        connection: Connection,
        country: str,
        statement: Statement,
        token: bytes,
        now: datetime,
    ) -> None:
        """Use up a token for one request. Raises ProtocolFault if it is not valid for it."""
        condition = invitations.c.token_hash == digest(token)
        row = connection.execute(select(invitations).where(condition)).one_or_none()
        if (
            row is None
            or _status(row, now) != OPEN
            or (row.country, row.role) != (country, statement.role)
            or statement.country != country
        ):
            raise ProtocolFault(
                "The invitation was not accepted",
                why="it was already used, has expired, was revoked, or is for another country or "
                "role",
                fix="ask the coordinator for a new one",
            )
        connection.execute(update(invitations).where(condition).values(used=now))

    def all(self, now: datetime) -> list[IssuedInvitation]:
        """Return every invitation, oldest first."""
        with transaction(self._engine) as connection:
            rows = connection.execute(select(invitations).order_by(invitations.c.created)).all()
        return [_issued(row, now) for row in rows]

    def revoke(self, identifier: str, now: datetime) -> IssuedInvitation:
        """Revoke an invitation by its id, used or not; calls with its certificate end.

        A request that was made with it still waits for a decision, and a party that was admitted
        with it stays admitted. Raises CoordinatorFault if there is none with this id.
        """
        with transaction(self._engine) as connection:
            rows = connection.execute(select(invitations)).all()
            row = next((row for row in rows if _id(row) == identifier.strip().lower()), None)
            if row is None or _status(row, now) == REVOKED:
                raise CoordinatorFault(
                    f"There is no invitation {identifier} to revoke",
                    why="the id was mistyped, or the invitation is revoked already",
                    fix="`invitation list` shows all ids",
                )
            condition = invitations.c.token_hash == row.token_hash
            connection.execute(update(invitations).where(condition).values(revoked=now))
            if row.serial is not None:
                self._register.revoke(connection, [int(row.serial)])
        self._register.reload()
        return _issued(row, now)


def _status(row: Row[Any], now: datetime) -> str:
    if row.revoked is not None:
        return REVOKED
    if row.used is not None:
        return USED
    return OPEN if now < row.created + INVITATION_LIFETIME else EXPIRED


def _id(row: Row[Any]) -> str:
    return str(row.token_hash).removeprefix("sha256:")[:ID_LENGTH]


def _issued(row: Row[Any], now: datetime) -> IssuedInvitation:
    expires = row.created + INVITATION_LIFETIME
    return IssuedInvitation(_id(row), row.country, row.role, expires, _status(row, now))
