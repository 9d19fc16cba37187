"""An officer who runs the real commands, against a document repository in place of the exchange."""

import base64
import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from governance.documents.agreement import Agreement
from governance.officer.cli import app
from governance.officer.home import TRANSPORT_KEY, Identity, OfficerHome, create_home
from governance.officer.own_documents import read_own
from governance.trust.bundle import CountryBundle, CountryDocuments
from keys.certificates import Role, TransportAuthority, new_transport_key, public_pem
from keys.errors import PratiqueError
from keys.identity import SigningKey
from keys.store import KeyStore
from protocols.errors import ProtocolFault
from protocols.proto.exchange_pb2 import (
    EnrolReply,
    EnrolRequest,
    RenewReply,
    RenewRequest,
    SubmitRequest,
)
from protocols.wire.channel import LinkFault
from protocols.wire.encoding import digest
from protocols.wire.invitation import Invitation, enrolment_fingerprint
from tests.support.documents import NOW, FederationDocuments, agreement_fields
from tests.support.narrowing import present

PASSPHRASE = "four random words here"
TOKEN = base64.b64encode(bytes(range(32))).decode()
AUTHORITY = TransportAuthority.create("nordic-heart", NOW - timedelta(days=1))
KEY = new_transport_key()
"""Made once, because making such a key is slow."""


def unreachable() -> LinkFault:
    return LinkFault("The exchange at exchange.test:7443 does not answer")


@dataclass
class DocumentExchange:
    """What an exchange does for officers, over a document repository, without a network."""

    documents: FederationDocuments
    down: bool = False
    submit_down: bool = False
    enrolment: EnrolReply.Status = EnrolReply.ADMITTED
    issued_to: tuple[str, Role] = ("DK", Role.OFFICER)
    tampered: dict[str, bytes | None] = field(default_factory=dict)
    asked: list[EnrolRequest] = field(default_factory=list)
    submitted: list[tuple[int, bytes]] = field(default_factory=list)
    renewal_refusal: PratiqueError | None = None
    renewals: list[RenewRequest] = field(default_factory=list)
    presented: list[bytes] = field(default_factory=list)
    closed: int = 0

    def fetch(self, path: str) -> bytes | None:
        self._reach()
        if path in self.tampered:
            return self.tampered[path]
        return self.documents.store.current_draft() if path == "draft" else self._published(path)

    def _published(self, path: str) -> bytes | None:
        return self.documents.store.read(path)

    def submit(self, kind: int, content: bytes) -> None:
        self._reach()
        if self.submit_down:
            raise unreachable()
        self.submitted.append((kind, content))
        try:
            self._take(kind, content)
        except PratiqueError as fault:
            raise ProtocolFault(fault.what, why=fault.why, fix=fault.fix) from None

    def _take(self, kind: int, content: bytes) -> None:
        documents = self.documents
        if kind == SubmitRequest.COUNTRY_BUNDLE:
            documents.store.accept_country(content, documents.now, online_key=documents.online_key)
        elif documents.store.add_signatures(content).ready:
            documents.publish()

    def enrol(self, request: EnrolRequest) -> EnrolReply:
        self._reach()
        self.asked.append(request)
        admitted = self.enrolment == EnrolReply.ADMITTED
        return EnrolReply(
            status=self.enrolment,
            fingerprint=enrolment_fingerprint(request.transport_key, request.statement),
            certificate=self._certificate(request) if admitted else b"",
        )

    def _certificate(self, request: EnrolRequest) -> bytes:
        country, role = self.issued_to
        return AUTHORITY.issue(
            request.transport_key,
            country=country,
            role=role,
            now=self.documents.now,
            lifetime=timedelta(days=90),
        )

    def renew(self, request: RenewRequest) -> RenewReply:
        self._reach()
        if self.renewal_refusal is not None:
            raise self.renewal_refusal
        self.renewals.append(request)
        asked = EnrolRequest(transport_key=request.public_key)
        return RenewReply(certificate=self._certificate(asked), authority=AUTHORITY.certificate_pem)

    def present(self, **shown: bytes) -> None:
        self.presented.append(shown["certificate"])

    def close(self) -> None:
        self.closed += 1

    def _reach(self) -> None:
        if self.down:
            raise unreachable()


def invitation(country: str = "DK", role: str = "officer", **changes: Any) -> Invitation:
    certificate = AUTHORITY.issue(
        public_pem(KEY),
        country=country,
        role=Role.ENROLMENT,
        now=NOW,
        lifetime=timedelta(days=7),
    )
    fields: dict[str, Any] = {
        "federation": "nordic-heart",
        "exchange": "exchange.test:7443",
        "country": country,
        "role": role,
        "token": TOKEN,
        "authority": AUTHORITY.certificate_pem.decode(),
        "authority_digest": AUTHORITY.digest,
        "root_digest": None,
        "certificate": certificate.decode(),
        "key": KEY.decode(),
        "expires": NOW + timedelta(days=7),
    }
    return Invitation.model_validate(fields | changes)


def agreed_with(key: SigningKey | str, **changes: Any) -> Agreement:
    """Return the usual agreement, with this key as the officer key of DK."""
    fields = agreement_fields(**changes)
    text = key if isinstance(key, str) else key.public.to_text()
    fields["parties"][0]["officer_key"] = text
    return Agreement.model_validate(fields)


@dataclass(frozen=True)
class OfficerSnapshot:
    """A copy of an officer's folder and of the exchange's state at a moment; it never changes."""

    folder: Path
    exchange_state: dict[str, Any]


@dataclass
class OfficerCommands:
    """The officer of DK, with a folder, a passphrase file, and methods that run commands."""

    folder: Path
    exchange: DocumentExchange
    now: datetime = NOW

    @property
    def home(self) -> OfficerHome:
        return OfficerHome(self.folder / "officer")

    @property
    def documents(self) -> FederationDocuments:
        return self.exchange.documents

    @property
    def passphrase_file(self) -> Path:
        return self.folder / "passphrase"

    @property
    def node(self) -> Path:
        return self.folder / "node"

    def run(self, *words: str | Path, unlock: bool = True, answer: str = "") -> Result:
        secret = ["--passphrase-file", str(self.passphrase_file)] if unlock else []
        command = [*map(str, words), "--home", str(self.home.path), *secret]
        return CliRunner().invoke(app, command, input=answer, catch_exceptions=False)

    def done(self, *words: str | Path, **how: Any) -> str:
        result = self.run(*words, **how)
        assert result.exit_code == 0, result.output
        return result.output

    def refused(self, *words: str | Path, **how: Any) -> str:
        """Run a command that must be refused and change nothing; return its error message."""
        before, submitted = self.contents(), len(self.exchange.submitted)
        result = self.run(*words, **how)
        assert result.exit_code == 1, result.output
        assert self.contents() == before
        assert len(self.exchange.submitted) == submitted
        return result.stderr

    def contents(self) -> dict[str, bytes]:
        """Return every file of the officer that matters for a decision."""
        files = (p for p in self.home.path.rglob("*") if p.is_file() and p.name != "lock")
        cached = {"root.json", "floor.json", "agreement.json"}  # may be stored at any time
        copies = self.home.trust / "published"  # likewise
        return {
            str(p): p.read_bytes()
            for p in files
            if p.name not in cached and not p.is_relative_to(copies)
        }

    def own(self) -> CountryDocuments:
        return present(read_own(self.home, self.home.settings(), self.now))

    def published(self) -> CountryDocuments:
        return present(self.documents.view().country("DK"))

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def make_node(self) -> Path:
        self.node.mkdir()
        (self.node / "node.yaml").write_text("country: DK\n")
        return self.node

    def enrol(self) -> "OfficerCommands":
        self.done("enrol", self.file("invitation.json", invitation().model_dump_json()))
        return self

    def certified(self) -> "OfficerCommands":
        """Store a certificate issued now, like that of an officer whose certificate was renewed."""
        store = KeyStore.open(self.home.keys, PASSPHRASE.encode())
        request = EnrolRequest(transport_key=public_pem(store.get(TRANSPORT_KEY)))
        self.exchange.documents.now = self.now
        self.home.certificate_file.write_bytes(self.exchange._certificate(request))
        return self

    def save(self, folder: Path) -> OfficerSnapshot:
        """Copy this officer's state to `folder`, so that tests can begin from it."""
        shutil.copytree(self.folder, folder)
        return OfficerSnapshot(folder, self._exchange_state())

    def restore(self, snapshot: OfficerSnapshot) -> "OfficerCommands":
        """Continue from a state that an officer with the same start had reached."""
        for folder in snapshot.folder.iterdir():
            shutil.rmtree(self.folder / folder.name, ignore_errors=True)
        shutil.copytree(snapshot.folder, self.folder, dirs_exist_ok=True)
        vars(self.exchange).update(copy.deepcopy(snapshot.exchange_state))
        return self

    def _exchange_state(self) -> dict[str, Any]:
        state = vars(self.exchange)
        return copy.deepcopy({name: state[name] for name in state if name != "documents"})

    def agree(self) -> "OfficerCommands":
        """Sign the first agreement, as two other countries do; this publishes it."""
        self.documents.store.draft(self.documents.agreed, self.documents.now)
        self.documents.sign("EE", "NO")
        self.done("sign", "--yes")
        return self


def use_fast_key_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make key stores open without delay, with the lowest cost of scrypt."""
    monkeypatch.setitem(vars(KeyStore)["create"].__func__.__kwdefaults__, "cost", 2)


def new_officer(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    agree: Callable[[str], Agreement] = agreed_with,
) -> OfficerCommands:
    """Return a new officer of DK, named in the draft agreement, with a clock that does not move."""
    use_fast_key_stores(monkeypatch)
    home = OfficerHome(folder / "officer")
    create_home(home, "DK", "Health data authority of DK", PASSPHRASE.encode)
    file = folder / "passphrase"
    file.touch(mode=0o600)
    file.write_text(PASSPHRASE + "\n")
    return officer_in(folder, monkeypatch, agree)


def officer_in(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    agree: Callable[[str], Agreement] = agreed_with,
) -> OfficerCommands:
    """Return the officer whose home is in this folder."""
    home = OfficerHome(folder / "officer")
    settings = home.settings()
    documents = FederationDocuments(folder / "documents", agreed=agree(settings.document_key))
    documents.officers["DK"] = Identity.open(home, settings, PASSPHRASE.encode()).key
    exchange = DocumentExchange(documents)
    officer = OfficerCommands(folder, exchange)
    monkeypatch.setattr("governance.officer.unlock.dial", lambda *_, **__: exchange)
    monkeypatch.setattr("governance.officer.unlock.utc_now", lambda: officer.now)
    return officer


def bundle_version(bundle: bytes) -> int:
    return CountryBundle.from_canonical(bundle).signed().signed.version


def root_digest(documents: FederationDocuments) -> str:
    return digest(documents.pinned)
