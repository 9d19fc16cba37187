"""A node that is created but not admitted, and an exchange that answers from a script."""

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from client.commands.enrol import Candidate, Introduction
from client.commands.init import create_node
from client.credentials.certificate_renewal import transport_pair
from client.credentials.keyring import NodeKeyring
from client.home import NodeHome
from client.settings import NodeSettings
from governance.documents.permit import NodeKeys
from keys.certificates import Role, TransportAuthority, new_transport_key, public_pem
from keys.store import KeyStore
from protocols.proto.exchange_pb2 import EnrolReply, EnrolRequest
from protocols.wire.encoding import digest
from protocols.wire.invitation import Invitation
from tests.support.documents import raw_key
from tests.support.keystore import LOWEST_SCRYPT_COST, PASSPHRASE
from tests.support.node_federation import DICTIONARY, records

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
ROOT = b'{"signed": "the first root"}'
OFFICER = raw_key(100).public.to_text()
WEEK = timedelta(days=7)


def files(folder: Path) -> dict[str, Path]:
    """Write records and a dictionary; return their paths, as settings name them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "records.csv").write_text(records())
    (folder / "dictionary.yaml").write_text(DICTIONARY)
    return {"data": folder / "records.csv", "dictionary": folder / "dictionary.yaml"}


def create_joining_node(folder: Path, country: str = "DK", **changes: Any) -> NodeHome:
    """Create a node as `init` does, and return its home."""
    home = NodeHome(folder / "node")
    fields = {"country": country, "officer_key": OFFICER, **files(folder / "files")}
    create_node(
        home, NodeSettings(**fields | changes), lambda: PASSPHRASE, NOW, cost=LOWEST_SCRYPT_COST
    )
    return home


def keyring(home: NodeHome) -> NodeKeyring:
    """Unlock a node's keys."""
    return NodeKeyring.load(KeyStore.open(home.keys, PASSPHRASE))


def invitation(
    authority: TransportAuthority, country: str = "DK", role: str = "node", **changes: Any
) -> Invitation:
    """Return an invitation as the coordinator writes it."""
    key = new_transport_key()
    certificate = authority.issue(
        public_pem(key), country=country, role=Role.ENROLMENT, now=NOW, lifetime=WEEK
    )
    fields: dict[str, Any] = {
        "federation": authority.federation,
        "exchange": "exchange.example:7443",
        "country": country,
        "role": role,
        "token": base64.b64encode(b"t" * 32).decode(),
        "authority": authority.certificate_pem.decode(),
        "authority_digest": authority.digest,
        "root_digest": digest(ROOT),
        "certificate": certificate.decode(),
        "key": key.decode(),
        "expires": NOW + WEEK,
    }
    return Invitation(**fields | changes)


@dataclass
class ScriptedExchange:
    """Answers enrolments with these statuses, one after another; the last one is repeated."""

    authority: TransportAuthority
    statuses: list[EnrolReply.Status] = field(default_factory=lambda: [EnrolReply.ADMITTED])
    root: bytes | None = ROOT
    country: str = "DK"
    role: Role = Role.NODE
    requests: list[EnrolRequest] = field(default_factory=list)
    dialled: list[bytes] = field(default_factory=list)
    closed: int = 0

    def dial(
        self, address: str, authority: bytes, key: bytes, certificate: bytes
    ) -> "ScriptedExchange":
        """Open a channel."""
        self.dialled.append(certificate)
        return self

    def enrol(self, request: EnrolRequest) -> EnrolReply:
        """Answer a request."""
        self.requests.append(request)
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        certificate = b""
        if status == EnrolReply.ADMITTED:
            certificate = self.authority.issue(
                request.transport_key,
                country=self.country,
                role=self.role,
                now=NOW,
                lifetime=timedelta(days=90),
            )
        return EnrolReply(status=status, certificate=certificate)

    def fetch(self, path: str) -> bytes | None:
        """Return the first root, and nothing else."""
        return self.root if path == "metadata/1.root.json" else None

    def close(self) -> None:
        """Note that the channel was closed."""
        self.closed += 1


@dataclass
class Newcomer:
    """A node before its enrolment, with everything that it needs to ask for admission."""

    home: NodeHome
    exchange: ScriptedExchange
    introductions: list[Introduction] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    clock: Callable[[], datetime] = lambda: NOW

    def enrol(self, asked: Invitation, wait: float = 0) -> bool:
        """Ask for admission."""
        candidate = Candidate(
            home=self.home,
            settings=self.home.settings(),
            pair=transport_pair(self.home, KeyStore.open(self.home.keys, PASSPHRASE)),
            keyring=keyring(self.home),
            keys=NodeKeys.from_canonical(self.home.node_keys.read_bytes()),
            dial=self.exchange.dial,
            clock=self.clock,
        )
        return candidate.enrol(
            asked, wait=wait, on_introduction=self.introductions.append, sleep=self.slept.append
        )
