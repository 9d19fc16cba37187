"""A coordinator's services over a federation of real documents and nodes; Flower is scripted."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from governance.audit.log import AuditLog
from governance.runtime.database import open_database
from governance.trust.repository import Repository
from keys.composite import Suite
from protocols.wire.invitation import Statement
from server.exchange.documents import ExchangeDocuments
from server.flower.presence import Presence, PresenceUpdate
from server.home import SETTINGS_FILE, CoordinatorHome, CoordinatorKeys, Settings
from server.membership.transport_authority import ExchangeTransport
from server.runs.store import RunStore
from server.services.context import CoordinatorContext
from server.services.dispatch import request_handler
from server.state.tables import MIGRATIONS
from tests.support.documents import COUNTRIES, NOW, raw_key, two_algorithm_key
from tests.support.enrolling import enrolment_of
from tests.support.keystore import fast_store
from tests.support.node_federation import NodeFederation

FEDERATION = "nordic-heart"
SETTINGS = Settings(federation=FEDERATION, listen="127.0.0.1:7443", address="127.0.0.1:7443")

FIRST_FLOWER_RUN = 7_001
"""The id that Flower gives to the first run; the others follow."""


@dataclass
class ScriptedFlower:
    """Records bundles, and accepts or refuses them as the test says."""

    bundles: list[Path] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    refusal: Exception | None = None
    address: str = "127.0.0.1:1"

    def run(self, bundle: Path) -> int:
        self._maybe_refuse()
        self.bundles.append(bundle)
        return FIRST_FLOWER_RUN - 1 + len(self.bundles)

    def stop(self, flower_run: int) -> None:
        self.stopped.append(flower_run)
        self._maybe_refuse()

    def _maybe_refuse(self) -> None:
        if self.refusal is not None:
            raise self.refusal


@dataclass
class ScriptedSessions:
    """Node sessions that are connected unless a test says otherwise."""

    connected: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(COUNTRIES, True))
    seated: list[Statement] = field(default_factory=list)
    announced: list[str] = field(default_factory=list)

    def open_session(self, node: Statement) -> None:
        self.seated.append(node)

    def mark_offline(self, country: str) -> None:
        self.connected[country] = False

    def online(self) -> dict[str, bool]:
        return self.connected

    def presence_update(self, count: int, wait: float) -> PresenceUpdate:
        there = {country: Presence(10 + n, 1, 0.0) for n, country in enumerate(COUNTRIES)}
        return PresenceUpdate(count + 1, there)

    def announce(self, countries: list[str]) -> None:
        self.announced += countries


@dataclass
class Coordinator:
    """The coordinator's services, requests to its daemon, and the federation that it serves."""

    federation: NodeFederation
    folder: Path
    flower: ScriptedFlower = field(default_factory=ScriptedFlower)
    sessions: ScriptedSessions = field(default_factory=ScriptedSessions)

    def __post_init__(self) -> None:
        self.folder.mkdir(mode=0o700)
        self.home = CoordinatorHome(self.folder)
        self.home.repository.symlink_to(self.federation.documents.home / "store")
        (self.folder / SETTINGS_FILE).write_text(yaml.safe_dump(SETTINGS.model_dump()))
        self.context = self._context()
        self._answer = request_handler(self.context)

    def clock(self) -> datetime:
        return self.federation.documents.now

    def _context(self) -> CoordinatorContext:
        engine = open_database(self.home.database, MIGRATIONS)
        store = fast_store(self.home.keys)
        transport = ExchangeTransport.create(
            self.folder, ("127.0.0.1",), store, federation=FEDERATION, now=NOW
        )
        keys = CoordinatorKeys(
            identity=two_algorithm_key(1) if self.federation.both else raw_key(1),
            document_key=raw_key(2),
            online_key=raw_key(3),
            log_key=raw_key(4),
            transport=transport,
        )
        repository = Repository(self.home.repository)
        documents = ExchangeDocuments(
            repository,
            document_key=keys.document_key,
            online_key=keys.online_key,
            clock=self.clock,
            on_change=lambda _: None,
        )
        return CoordinatorContext(
            home=self.home,
            settings=SETTINGS,
            keys=keys,
            enrolment=enrolment_of(engine, transport),
            repository=repository,
            documents=documents,
            runs=RunStore(engine),
            log=AuditLog(engine, f"pratique/{FEDERATION}/coordinator", keys.log_key),
            superlink=self.flower,  # type: ignore[arg-type]
            sessions=self.sessions,  # type: ignore[arg-type]
            clock=self.clock,
        )

    def ask(self, method: str, **params: Any) -> Any:
        """Return what the daemon answers over local RPC."""
        return self._answer(method, params)

    def log_entries(self) -> list[dict[str, Any]]:
        """Return the entries of the audit log, oldest first."""
        return [json.loads(line)["entry"] for line in self.ask("log_entries")["entries"]]

    def log_kinds(self) -> list[str]:
        """Return the kinds of the audit log's entries, oldest first."""
        return [entry["kind"] for entry in self.log_entries()]


class NodesCarrier:
    """Carries frames to the federation's real nodes, but not to the `silent` ones."""

    def __init__(self, federation: NodeFederation) -> None:
        self._federation = federation
        self.silent: set[str] = set()

    def exchange(self, frames: Mapping[str, bytes], seconds: float) -> Mapping[str, bytes]:
        return {
            country: self._federation.nodes[country].handle(frame)
            for country, frame in frames.items()
            if country not in self.silent
        }


class LocalRunServices:
    """The daemon's services for the server app, without a socket between them."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self.released: list[str] = []

    def sign(self, message: bytes, suite: Suite) -> bytes:
        text = base64.b64encode(message).decode()
        return base64.b64decode(self._coordinator.ask("sign", message=text, suite=suite.value))

    def release(self, study: str, run: str, outcome: dict[str, Any], model: bytes) -> None:
        text = base64.b64encode(model).decode()
        self._coordinator.ask("release", study=study, run=run, outcome=outcome, model=text)
        self.released.append(run)
