"""Parties with certificates over years: an exchange without a network, and crashes at writes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

import governance.runtime.credentials
import server.membership.transport_authority
from governance.runtime.credentials import Credentials, KeptPair
from keys.certificates import Role, peer_of, public_pem
from keys.renewal import certified_key
from keys.store import KeyStore
from protocols.proto.exchange_pb2 import RenewReply, RenewRequest
from protocols.wire.channel import LinkFault
from server.membership.enrolment import EnrolmentService
from server.membership.transport_authority import ExchangeTransport
from tests.support.enrolling import Applicant, node_statement, officer_statement
from tests.support.keystore import fast_store, reopen


class Death(Exception):
    """Raised where the process is killed."""


@contextmanager
def dying(monkeypatch: pytest.MonkeyPatch, step: int) -> Iterator[list[str]]:
    """Crash before the write number `step`, counted from 0; yield the names of earlier writes."""
    done: list[str] = []

    def cut(name: str, act: Callable[..., None]) -> Callable[..., None]:
        def acting(*words: object) -> None:
            if len(done) == step:
                raise Death
            act(*words)
            done.append(name)

        return acting

    with monkeypatch.context() as patch:
        for name in ("put", "delete"):
            patch.setattr(KeyStore, name, cut(name, getattr(KeyStore, name)))
        for module in (governance.runtime.credentials, server.membership.transport_authority):
            patch.setattr(module, "write_atomic", cut("write", module.write_atomic))
        yield done


@dataclass
class DirectLink:
    """A link to an exchange without a network; both ends check certificates as TLS would."""

    enrolment: EnrolmentService
    transport: ExchangeTransport
    clock: Callable[[], datetime]
    authority: bytes = b""
    certificate: bytes = b""
    lost: bool = False
    """Whether replies to renewals are lost."""
    presented: list[bytes] = field(default_factory=list)

    def present(self, *, authority: bytes, key: bytes, certificate: bytes) -> None:
        self.authority, self.certificate = authority, certificate
        self.presented.append(certificate)

    def renew(self, request: RenewRequest) -> RenewReply:
        now = self.clock()
        self._check_server(now)
        peer = self.enrolment.register.peer(self.certificate, "Renew", now)
        reply = self.enrolment.register.renew(peer, request, now)
        if self.lost:
            raise LinkFault("The exchange does not answer")
        return reply

    def call(self, name: str = "Fetch") -> None:
        """Make any call. Raises KeyFault if either end does not accept the other's certificate."""
        now = self.clock()
        self._check_server(now)
        self.enrolment.register.peer(self.certificate, name, now)

    def _check_server(self, now: datetime) -> None:
        certificate = self.transport.certificate
        peer = peer_of(certificate, authority_pem=self.authority, now=now, revoked=())
        assert peer.role is Role.COORDINATOR


@dataclass
class Party:
    """A node or an officer with its folder, admitted at an exchange."""

    folder: Path
    role: Role
    link: DirectLink
    country: str = "AT"
    share: float = 0.0

    @property
    def pair(self) -> KeptPair:
        return KeptPair(reopen(self.folder / "keys"), "transport", self.folder / "certificate.pem")

    @property
    def credentials(self) -> Credentials:
        authority = self.folder / "authority.pem"
        return Credentials(self.pair, authority, clock=self.link.clock, share=self.share)

    def enrol(self) -> "Party":
        """Enrol at the exchange, for the first time or again."""
        if not (self.folder / "keys").exists():
            self.folder.mkdir()
            fast_store(self.folder / "keys")
        enrolment, now, pair = self.link.enrolment, self.link.clock(), self.pair
        statement_of = node_statement if self.role is Role.NODE else officer_statement
        who = Applicant(statement_of(self.country), pair.next_key())
        invitation = enrolment.invite(
            self.country, self.role, exchange="x:1", root_digest=None, now=now
        )
        request = who.request(invitation)
        enrolment.admit(enrolment.enrol(self.country, request, now).fingerprint, now)
        (self.folder / "authority.pem").write_text(invitation.authority)
        pair.keep(enrolment.enrol(self.country, request, now).certificate)
        return self.start()

    def start(self) -> "Party":
        """Open the link with the key and certificate in the folder."""
        shown = self.credentials.presented()
        self.link.present(authority=shown.authority, key=shown.key, certificate=shown.certificate)
        return self

    def renew(self) -> None:
        """Renew the certificate, and present the new one from then on."""
        shown = self.credentials.renew(self.link)
        self.link.present(authority=shown.authority, key=shown.key, certificate=shown.certificate)

    def holds_a_pair(self) -> bool:
        key, certificate = self.pair.load()
        return certified_key(certificate) == public_pem(key)
