"""How a node joins a federation: an invitation, a fingerprint read out, a certificate, a root.

The invitation must be for this country's node, in time, and whole: its digests of the transport
authority and of the TUF root are what people compared by voice, and both are checked here. The
request is the same however often it is sent, so an interrupted enrolment goes on where it was.
A node whose certificate has ended enrols again: it keeps its federation, its root, its keys, its
ledger and its log, and gets a new transport key and certificate.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from client.errors import OperationFault
from client.home import NodeHome
from client.settings import Enrolment, NodeSettings
from client.state.tables import MIGRATIONS
from governance.audit.events import Event, EventKind
from governance.audit.log import LogWriter
from governance.documents.permit import NodeKeys
from governance.runtime.credentials import KeptPair
from governance.runtime.database import open_database
from governance.runtime.files import write_atomic
from keys.certificates import Role, certificate_fingerprint, peer_of, public_pem
from protocols.proto.exchange_pb2 import EnrolReply, EnrolRequest
from protocols.wire.encoding import digest
from protocols.wire.invitation import Invitation, Statement, enrolment_fingerprint

FIRST_ROOT = "metadata/1.root.json"
POLL_SECONDS = 1.0
_NEW = "ask the coordinator for a new invitation"


class EnrolmentLink(Protocol):
    """What enrolment needs of the exchange."""

    def enrol(self, request: EnrolRequest) -> EnrolReply:
        """Ask for admission, or what became of it."""

    def fetch(self, path: str) -> bytes | None:
        """Return one published file."""

    def close(self) -> None:
        """Close the channel."""


Dial = Callable[[str, bytes, bytes, bytes], EnrolmentLink]
"""Opens a channel to an address with (authority, key, certificate), all PEM."""


@dataclass(frozen=True)
class Introduction:
    """What people compare by voice before the node is let in."""

    federation: str
    exchange: str
    fingerprint: str
    authority_digest: str
    root_digest: str


@dataclass(frozen=True)
class Candidate:
    """A node that asks to be let in."""

    home: NodeHome
    settings: NodeSettings
    pair: KeptPair
    keys: NodeKeys
    dial: Dial
    clock: Callable[[], datetime]

    def enrol(
        self,
        invitation: Invitation,
        *,
        wait: float,
        tell: Callable[[Introduction], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> bool:
        """Ask for admission, and again for `wait` seconds while nobody has decided.

        `tell` is called before anything is sent. Returns whether the node is let in; False while
        its request waits. Raises OperationFault, LinkFault; then nothing was changed. Raises
        StorageFault where the admission cannot be logged; the node is not enrolled then.
        """
        root_digest = self._checked(invitation)
        request = self._request(invitation)
        tell(
            Introduction(
                federation=invitation.federation,
                exchange=invitation.exchange,
                fingerprint=enrolment_fingerprint(request.transport_key, request.statement),
                authority_digest=invitation.authority_digest,
                root_digest=root_digest,
            )
        )
        reply = self._ask(invitation, request, wait, sleep)
        if reply.status == EnrolReply.REFUSED:
            raise OperationFault("The coordinator has turned the request away", fix=_NEW)
        if reply.status != EnrolReply.ADMITTED:
            return False
        self._admit(invitation, root_digest, reply.certificate)
        return True

    def _checked(self, invitation: Invitation) -> str:
        """Return the root's digest. Raises OperationFault where the invitation is of no use."""
        problem = self._problem(invitation)
        if problem:
            raise OperationFault("This invitation cannot be used", why=problem, fix=_NEW)
        if invitation.root_digest is None:
            raise OperationFault(
                "The agreement of this federation is not signed yet",
                why="the invitation names no root of documents, and without one nothing can be "
                "trusted",
                fix="wait until the countries have signed, then ask for a new invitation",
            )
        return invitation.root_digest

    def _problem(self, invitation: Invitation) -> str:
        country = self.settings.country
        if (invitation.country, invitation.role) != (country, "node"):
            meant = f"{invitation.role} of {invitation.country}"
            return f"it is for the {meant}, and this is the node of {country}"
        if other := self._other_federation(invitation):
            return other
        if certificate_fingerprint(invitation.authority.encode()) != invitation.authority_digest:
            return "its transport authority does not have the digest that it states"
        ended = invitation.expires <= self.clock()
        return f"it expired on {invitation.expires:%Y-%m-%d %H:%M} UTC" if ended else ""

    def _other_federation(self, invitation: Invitation) -> str:
        """A ledger, and what its charges rest on, belong to one federation for good."""
        held = self.settings.enrolment
        if held is None:
            return ""
        if invitation.federation != held.federation:
            return f"it is of {invitation.federation}, and this node belongs to {held.federation}"
        if invitation.root_digest not in (None, held.root_digest):
            return "it names another root of documents than the one that this node began with"
        return ""

    def _request(self, invitation: Invitation) -> EnrolRequest:
        statement = Statement(
            country=self.settings.country,
            role="node",
            identity_key=self.keys.identity_key,
            log_key=self.keys.log_key,
            log_origin=self.keys.log_origin,
            node_auth=self.keys.node_auth,
        )
        return EnrolRequest(
            token=invitation.token_bytes(),
            transport_key=public_pem(self.pair.next_key()),
            statement=statement.to_bytes(),
        )

    def _ask(
        self,
        invitation: Invitation,
        request: EnrolRequest,
        wait: float,
        sleep: Callable[[float], None],
    ) -> EnrolReply:
        link = self.dial(
            invitation.exchange,
            invitation.authority.encode(),
            invitation.key.encode(),
            invitation.certificate.encode(),
        )
        try:
            reply = link.enrol(request)
            for _ in range(int(wait / POLL_SECONDS)):
                if reply.status != EnrolReply.PENDING:
                    break
                sleep(POLL_SECONDS)
                reply = link.enrol(request)
            return reply
        finally:
            link.close()

    def _admit(self, invitation: Invitation, root_digest: str, certificate: bytes) -> None:
        authority = invitation.authority.encode()
        self._check_certificate(invitation, authority, certificate)
        root = self._root(invitation, root_digest, certificate)
        write_atomic(self.home.root, root)
        write_atomic(self.home.authority, authority)
        self.pair.keep(certificate)
        self._log(invitation.federation, certificate)
        enrolment = Enrolment(
            federation=invitation.federation,
            exchange=invitation.exchange,
            authority_digest=invitation.authority_digest,
            root_digest=root_digest,
        )
        self.home.write_settings(self.settings.model_copy(update={"enrolment": enrolment}))

    def _log(self, federation: str, certificate: bytes) -> None:
        engine = open_database(self.home.database, MIGRATIONS)
        event = Event(
            kind=EventKind.NODE_ENROLLED,
            at=self.clock(),
            actor=self.settings.country,
            subject=certificate_fingerprint(certificate),
            reason=f"admitted to the federation {federation}",
        )
        LogWriter(engine, self.keys.log_origin).append(event)
        engine.dispose()

    def _check_certificate(
        self, invitation: Invitation, authority: bytes, certificate: bytes
    ) -> None:
        peer = peer_of(certificate, authority_pem=authority, now=self.clock(), revoked=())
        due = (invitation.federation, self.settings.country, Role.NODE)
        if (peer.federation, peer.country, peer.role) != due:
            raise OperationFault(
                "The certificate that came back is not this node's",
                why=f"it is for the {peer.role} of {peer.country} in {peer.federation}",
                fix="tell the coordinator; nothing was kept",
            )

    def _root(self, invitation: Invitation, root_digest: str, certificate: bytes) -> bytes:
        """Fetch the first root with the new certificate; only the digest makes it believed."""
        link = self.dial(
            invitation.exchange,
            invitation.authority.encode(),
            self.pair.next_key(),
            certificate,
        )
        try:
            root = link.fetch(FIRST_ROOT)
        finally:
            link.close()
        if root is None or digest(root) != root_digest:
            raise OperationFault(
                "The exchange shows another root of documents than the invitation names",
                why=f"expected {root_digest}, found {digest(root) if root else 'none'}",
                fix="compare the digest with the coordinator by voice; nothing was kept",
            )
        return root
