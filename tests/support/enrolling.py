"""Parties that ask for admission, honest or not, and the service that admits them."""

from dataclasses import dataclass, field

from sqlalchemy import Engine

from governance.audit.events import EventKind
from keys.certificates import (
    TransportAuthority,
    new_node_auth_key,
    new_transport_key,
    public_pem,
)
from keys.identity import SigningKey
from keys.succession import AuthorityLine
from protocols.proto.exchange_pb2 import EnrolRequest
from protocols.wire.invitation import Invitation, Statement
from server.membership.certificates import Authorities, CertificateRegister
from server.membership.enrolment import EnrolmentService

Noted = list[tuple[EventKind, str]]


def enrolment_of(
    engine: Engine,
    authorities: TransportAuthority | Authorities,
    *,
    noted: Noted | None = None,
) -> EnrolmentService:
    """Return the enrolment service of a federation with one authority, or with a line of them."""
    events: Noted = [] if noted is None else noted
    if isinstance(authorities, TransportAuthority):
        authorities = AuthorityLine.of(authorities)
    register = CertificateRegister(
        engine, authorities, note=lambda kind, whom: events.append((kind, whom))
    )
    return EnrolmentService(engine, register)


def text_key() -> str:
    return SigningKey.generate().public.to_text()


def officer_statement(country: str = "AT", **changed: str) -> Statement:
    return Statement(country=country, role="officer", **{"document_key": text_key(), **changed})


def node_statement(country: str = "AT", **changed: str) -> Statement:
    plain = {
        "identity_key": text_key(),
        "log_key": text_key(),
        "log_origin": f"pratique/danube/{country}",
        "node_auth": new_node_auth_key()[1],
    }
    return Statement(country=country, role="node", **{**plain, **changed})


@dataclass
class Applicant:
    """A party with its transport key and its statement about itself."""

    statement: Statement = field(default_factory=officer_statement)
    key: bytes = field(default_factory=new_transport_key)

    def request(self, invitation: Invitation, **changed: bytes) -> EnrolRequest:
        plain = {
            "token": invitation.token_bytes(),
            "transport_key": public_pem(self.key),
            "statement": self.statement.to_bytes(),
        }
        return EnrolRequest(**{**plain, **changed})
