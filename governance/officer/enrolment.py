"""Enrol an officer with an exchange: invitation, fingerprint compared by voice, certificate."""

import time
from pathlib import Path

from governance.officer.errors import OfficerFault
from governance.officer.session import OfficerSession
from governance.runtime.files import write_atomic
from governance.runtime.safe_text import named, quoted
from keys.certificates import (
    Role,
    certificate_fingerprint,
    peer_of,
    public_pem,
)
from protocols.proto.exchange_pb2 import EnrolReply, EnrolRequest
from protocols.wire.invitation import (
    Invitation,
    Statement,
    enrolment_fingerprint,
    read_invitation,
)

POLL_SECONDS = 1.0
_NEW = "ask the coordinator for a new invitation"


def enrol(session: OfficerSession, path: Path, *, wait: float) -> None:
    """Ask for admission; while it is not decided, ask again for `wait` seconds.

    The same invitation may be used again to ask for the outcome: the request is the same.
    """
    invitation = read_invitation(path)
    check_invitation(session, invitation)
    request = _request(session, invitation)
    fingerprint = enrolment_fingerprint(request.transport_key, request.statement)
    _introduce(session, invitation, fingerprint)
    reply = _ask(session, invitation, request, wait)
    if reply.status == EnrolReply.REFUSED:
        raise OfficerFault("The coordinator has refused your request", fix=_NEW)
    if reply.status == EnrolReply.ADMITTED:
        _admit(session, invitation, reply.certificate)
    else:
        session.terminal.say(
            "The request waits for the coordinator. Run the same command again after its decision."
        )
    status = "admitted" if reply.status == EnrolReply.ADMITTED else "pending"
    session.terminal.answer({"status": status, "fingerprint": fingerprint})


def check_invitation(session: OfficerSession, invitation: Invitation) -> None:
    """Raise OfficerFault unless the invitation is for this officer, whole, and in time."""
    why = _problem(session, invitation)
    if why:
        raise OfficerFault("This invitation cannot be used", why=why, fix=_NEW)


def _problem(session: OfficerSession, invitation: Invitation) -> str:
    for_whom = f"{invitation.role} of {invitation.country}"
    if for_whom != f"officer of {session.country}":
        return f"it is for the {for_whom}, and you are the officer of {session.country}"
    if session.settings.federation not in {None, invitation.federation}:
        whose = named(invitation.federation)
        return f"it is for {whose}, and you belong to {session.settings.federation}"
    if certificate_fingerprint(invitation.authority.encode()) != invitation.authority_digest:
        return "its transport authority does not have the digest that it states"
    ended = invitation.expires <= session.now()
    return f"it expired on {invitation.expires:%Y-%m-%d %H:%M} UTC" if ended else ""


def _request(session: OfficerSession, invitation: Invitation) -> EnrolRequest:
    """Return the request; store its transport key first, so that it can be sent again."""
    statement = Statement(
        country=session.country, role="officer", document_key=session.settings.document_key
    )
    return EnrolRequest(
        token=invitation.token_bytes(),
        transport_key=public_pem(session.pair.next_key()),
        statement=statement.to_bytes(),
    )


def _introduce(session: OfficerSession, invitation: Invitation, fingerprint: str) -> None:
    session.terminal.heading(
        f"Enrolment of {quoted(session.settings.authority)} ({session.country})"
    )
    session.terminal.facts(
        {
            "federation": named(invitation.federation),
            "exchange": named(invitation.exchange),
            "your request": fingerprint,
            "transport authority": invitation.authority_digest,
            "root of the documents": invitation.root_digest or "none signed yet",
        }
    )
    session.terminal.say("Read your request's fingerprint out to the coordinator by voice.")
    session.terminal.say("Ask the coordinator to read out the two digests: they must be the same.")


def _ask(
    session: OfficerSession, invitation: Invitation, request: EnrolRequest, wait: float
) -> EnrolReply:
    link = session.dial(
        invitation.exchange,
        authority=invitation.authority.encode(),
        key=invitation.key.encode(),
        certificate=invitation.certificate.encode(),
    )
    try:
        reply = link.enrol(request)
        for _ in range(int(wait / POLL_SECONDS)):
            if reply.status != EnrolReply.PENDING:
                break
            time.sleep(POLL_SECONDS)
            reply = link.enrol(request)
        return reply
    finally:
        link.close()


def _admit(session: OfficerSession, invitation: Invitation, certificate: bytes) -> None:
    authority = invitation.authority.encode()
    peer = peer_of(certificate, authority_pem=authority, now=session.clock(), revoked=())
    if (peer.federation, peer.country, peer.role) != (
        invitation.federation,
        session.country,
        Role.OFFICER,
    ):
        raise OfficerFault(
            "The certificate from the exchange is not yours",
            why=f"it is for the {peer.role} of {peer.country} in {peer.federation}",
            fix="notify the coordinator; nothing was kept",
        )
    write_atomic(session.home.authority_file, authority)
    session.pair.keep(certificate)
    update = {
        "federation": invitation.federation,
        "exchange": invitation.exchange,
        "root_digest": invitation.root_digest or session.settings.root_digest,
    }
    session.save(session.settings.model_copy(update=update))
    session.terminal.say(
        f"You are admitted. Your certificate is valid until {peer.not_after:%Y-%m-%d}."
    )
    session.terminal.say("Next: `pratique-officer inbox` shows what waits for you.")
