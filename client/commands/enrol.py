"""`pratique-node enrol`: joins a federation with an invitation.

The invitation must be for this country's node, not expired, and complete. People compare its two
digests, of the transport authority and of the TUF root, by voice; both are checked here. The
request is always the same, so an interrupted enrolment continues where it was.

A node whose certificate has expired enrols again: it keeps its federation, its root, its keys, its
ledger and its log, and gets a new transport key and certificate.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from client.credentials.keyring import NodeKeyring
from client.errors import NodeFault
from client.home import NodeHome
from client.settings import Enrolment, NodeSettings
from client.state.log_head import LogHeadGuard
from client.state.state_check import StateCheck, open_log
from client.state.tables import MIGRATIONS
from governance.audit.events import Event, EventKind
from governance.documents.permit import NodeKeys
from governance.runtime.credentials import KeptPair
from governance.runtime.database import open_database
from governance.runtime.files import write_atomic
from governance.trust.layout import FIRST_ROOT
from keys.certificates import Role, certificate_fingerprint, peer_of, public_pem
from protocols.proto.exchange_pb2 import EnrolReply, EnrolRequest
from protocols.wire.encoding import digest
from protocols.wire.invitation import Invitation, Statement, enrolment_fingerprint

POLL_SECONDS = 1.0
_ASK_FOR_INVITATION = "ask the coordinator for a new invitation"


class EnrolmentLink(Protocol):
    """The part of the exchange that enrolment needs."""

    def enrol(self, request: EnrolRequest) -> EnrolReply:
        """Ask for admission, or for the result of an earlier request."""

    def fetch(self, path: str) -> bytes | None:
        """Return one published file."""

    def close(self) -> None:
        """Close the channel."""


Dial = Callable[[str, bytes, bytes, bytes], EnrolmentLink]
"""Opens a channel to an address with (authority, key, certificate), all PEM."""


@dataclass(frozen=True)
class Introduction:
    """What people compare by voice before the node is admitted."""

    federation: str
    exchange: str
    fingerprint: str
    authority_digest: str
    root_digest: str


@dataclass(frozen=True)
class Candidate:
    """A node that asks for admission to a federation."""

    home: NodeHome
    settings: NodeSettings
    pair: KeptPair
    keys: NodeKeys
    keyring: NodeKeyring
    dial: Dial
    clock: Callable[[], datetime]

    def enrol(
        self,
        invitation: Invitation,
        *,
        wait: float,
        on_introduction: Callable[[Introduction], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> bool:
        """Ask for admission, and ask again for `wait` seconds while nobody has decided.

        `on_introduction` is called before anything is sent. Returns whether the node is admitted;
        False while its request waits. Raises NodeFault, LinkFault; then nothing was changed.
        Raises StorageFault if the admission cannot be logged, and LogFault if the log is not as it
        was signed; no certificate is kept then.
        """
        root_digest = self._checked_root_digest(invitation)
        request = self._request(invitation)
        on_introduction(
            Introduction(
                federation=invitation.federation,
                exchange=invitation.exchange,
                fingerprint=enrolment_fingerprint(request.transport_key, request.statement),
                authority_digest=invitation.authority_digest,
                root_digest=root_digest,
            )
        )
        with self._log_admission() as log_admission:
            reply = self._ask(invitation, request, wait, sleep)
            if reply.status == EnrolReply.REFUSED:
                raise NodeFault("The coordinator has refused the request", fix=_ASK_FOR_INVITATION)
            if reply.status != EnrolReply.ADMITTED:
                return False
            self._admit(invitation, root_digest, reply.certificate, log_admission)
        return True

    def _checked_root_digest(self, invitation: Invitation) -> str:
        """Return the digest of the root. Raises NodeFault if the invitation is invalid."""
        problem = self._problem(invitation)
        if problem:
            raise NodeFault("This invitation cannot be used", why=problem, fix=_ASK_FOR_INVITATION)
        if invitation.root_digest is None:
            raise NodeFault(
                "The agreement of this federation is not signed yet",
                why="the invitation names no root of documents, and without a root no document can "
                "be trusted",
                fix="wait until the countries have signed, then ask for a new invitation",
            )
        return invitation.root_digest

    def _problem(self, invitation: Invitation) -> str:
        country = self.settings.country
        if (invitation.country, invitation.role) != (country, "node"):
            invited = f"{invitation.role} of {invitation.country}"
            return f"it is for the {invited}, and this is the node of {country}"
        if other := self._other_federation(invitation):
            return other
        if certificate_fingerprint(invitation.authority.encode()) != invitation.authority_digest:
            return "the digest that it states is not that of its transport authority"
        expired = invitation.expires <= self.clock()
        return f"it expired on {invitation.expires:%Y-%m-%d %H:%M} UTC" if expired else ""

    def _other_federation(self, invitation: Invitation) -> str:
        """Return a sentence if the invitation is not for the federation of this node.

        A ledger, and the documents behind its charges, belong to one federation for ever.
        """
        enrolment = self.settings.enrolment
        if enrolment is None:
            return ""
        if invitation.federation != enrolment.federation:
            joined = enrolment.federation
            return f"it is for {invitation.federation}, and this node belongs to {joined}"
        if invitation.root_digest not in (None, enrolment.root_digest):
            return "it names another root of documents than the one that this node started with"
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

    def _admit(
        self,
        invitation: Invitation,
        root_digest: str,
        certificate: bytes,
        log_admission: Callable[[Event], None],
    ) -> None:
        authority = invitation.authority.encode()
        self._check_certificate(invitation, authority, certificate)
        root = self._root(invitation, root_digest, certificate)
        write_atomic(self.home.root, root)
        write_atomic(self.home.authority, authority)
        log_admission(self._event(invitation.federation, certificate))
        self.pair.keep(certificate)
        enrolment = Enrolment(
            federation=invitation.federation,
            exchange=invitation.exchange,
            authority_digest=invitation.authority_digest,
            root_digest=root_digest,
        )
        self.home.write_settings(self.settings.model_copy(update={"enrolment": enrolment}))

    @contextmanager
    def _log_admission(self) -> Iterator[Callable[[Event], None]]:
        """Open the audit log before anything is sent: an invitation serves only once.

        The log-head file moves with the log, unless the database may be an older copy. A node that
        was restored may have to enrol before `pratique-node restored`.
        """
        engine = open_database(self.home.database, MIGRATIONS)
        keyring, country = self.keyring, self.settings.country
        log = open_log(
            engine, self.keys.log_origin, keyring.log_key, former=not keyring.signs_state
        )
        check = StateCheck(engine, log, country)
        head = LogHeadGuard(self.home, engine, log, check)

        def append(event: Event) -> None:
            newest = head.shows_newest()
            log.append(event)
            if newest:
                head.accept()

        try:
            check.take_over()
            yield append
        finally:
            engine.dispose()

    def _event(self, federation: str, certificate: bytes) -> Event:
        return Event(
            kind=EventKind.NODE_ENROLLED,
            at=self.clock(),
            actor=self.settings.country,
            subject=certificate_fingerprint(certificate),
            reason=f"admitted to the federation {federation}",
        )

    def _check_certificate(
        self, invitation: Invitation, authority: bytes, certificate: bytes
    ) -> None:
        peer = peer_of(certificate, authority_pem=authority, now=self.clock(), revoked=())
        expected = (invitation.federation, self.settings.country, Role.NODE)
        if (peer.federation, peer.country, peer.role) != expected:
            raise NodeFault(
                "The certificate that the exchange sent is not for this node",
                why=f"it is for the {peer.role} of {peer.country} in {peer.federation}",
                fix="report this to the coordinator; nothing was stored",
            )

    def _root(self, invitation: Invitation, root_digest: str, certificate: bytes) -> bytes:
        """Fetch the first root with the new certificate; it is trusted only by its digest."""
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
            raise NodeFault(
                "The exchange sent another root of documents than the invitation names",
                why=f"expected {root_digest}, received {digest(root) if root else 'none'}",
                fix="compare the digest with the coordinator by voice; nothing was stored",
            )
        return root
