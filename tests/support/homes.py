"""Open the homes of a federation of two countries at a chosen time, without daemons or network.

The homes are those that the commands make: settings, key stores, databases and documents are read
from disk, and a party that calls the exchange is identified by the certificate in its home. Only
sockets and Flower are left out, and the noise is zero. Paths in the settings are relative to the
folder of all homes, so that it can be moved: it must be the working directory.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from client.credentials.certificate_renewal import credentials
from client.credentials.identity_keys import IdentityKeys
from client.credentials.keyring import NodeKeyring
from client.home import NodeHome
from client.node import Node
from client.state.tables import MIGRATIONS as NODE_MIGRATIONS
from client.wiring import Surroundings, build_node
from governance.audit.exported import export_head, export_page
from governance.audit.log import AuditLog
from governance.officer.home import OfficerHome
from governance.officer.logs import Source
from governance.officer.session import OfficerSession
from governance.officer.terminal import Terminal
from governance.results.result import Result, read_result
from governance.runtime.database import open_database
from governance.trust.repository import Repository
from keys.store import KeyStore
from protocols.private_sum.messages import read_request
from protocols.proto import exchange_pb2
from protocols.proto.round_pb2 import Phase
from server.exchange.documents import ExchangeDocuments
from server.home import CoordinatorHome
from server.key_rotation import open_keys
from server.membership.certificates import CertificateRegister
from server.membership.enrolment import EnrolmentService
from server.runs import attempt as attempt_module
from server.runs.store import RunStore
from server.services.context import CoordinatorContext
from server.services.dispatch import request_handler
from server.services.run_supervisor import supervise_runs
from server.state.signed_log import open_log, take_over
from server.state.tables import MIGRATIONS as COORDINATOR_MIGRATIONS
from tests.support.coordinator_services import LocalRunServices, ScriptedFlower, ScriptedSessions
from tests.support.node_federation import AT_ONCE
from tests.support.zero_noise import ZeroNoise

PARTIES = ("DK", "EE")
"""The fewest countries that an agreement may have."""
COORDINATOR, NODE, OFFICER = "coordinator", "node", "officer"

Clock = Callable[[], datetime]


class OpenCoordinator:
    """A coordinator's home as its daemon opens it; Flower and connections are scripted."""

    def __init__(self, home: CoordinatorHome, passphrase: bytes, clock: Clock) -> None:
        self.home, self.clock = home, clock
        self.keys = open_keys(home, passphrase)
        self.engine = open_database(home.database, COORDINATOR_MIGRATIONS)
        self.flower, settings = ScriptedFlower(), home.settings()
        self.log = open_log(self.engine, settings.log_origin, self.keys.log)
        take_over(self.log, clock())
        repository = Repository(home.repository)
        self.context = CoordinatorContext(
            home=home,
            settings=settings,
            keys=self.keys,
            enrolment=EnrolmentService(self.engine, self._register()),
            repository=repository,
            documents=ExchangeDocuments(
                repository,
                document_key=self.keys.document_key,
                online_key=self.keys.online_key,
                clock=clock,
                on_change=lambda _: None,
                next_keys=self.keys.next_keys,
            ),
            runs=RunStore(self.engine),
            log=self.log,
            superlink=self.flower,  # type: ignore[arg-type]
            sessions=ScriptedSessions(dict.fromkeys(PARTIES, True)),  # type: ignore[arg-type]
            clock=clock,
        )
        self._answer = request_handler(self.context)

    def _register(self) -> CertificateRegister:
        return CertificateRegister(self.engine, self.keys.transport, note=lambda *_: None)

    def ask(self, method: str, **params: Any) -> Any:
        """Return the daemon's answer to a command."""
        return self._answer(method, params)

    def result(self, study: str) -> Result:
        """Return a released result, its signature verified."""
        return read_result(self.home.results / study, [self.keys.document_key.public])

    def call(
        self, address: str, authority: bytes, key: bytes, certificate: bytes
    ) -> "ExchangeCalls":
        """Return the exchange's calls for the holder of a certificate."""
        return ExchangeCalls(self, certificate)


@dataclass
class ExchangeCalls:
    """The exchange's calls for one party. Raises KeyFault if its certificate is not valid."""

    coordinator: OpenCoordinator
    certificate: bytes

    def _caller(self, call: str) -> Any:
        context = self.coordinator.context
        return context.enrolment.register.peer(self.certificate, call, context.clock())

    def fetch(self, path: str) -> bytes | None:
        self._caller("Fetch")
        return self.coordinator.context.documents.fetch(path)

    def submit(self, kind: int, content: bytes) -> None:
        self.coordinator.context.documents.submit(self._caller("Submit"), kind, content)

    def enrol(self, request: exchange_pb2.EnrolRequest) -> exchange_pb2.EnrolReply:
        context = self.coordinator.context
        return context.enrolment.enrol(self._caller("Enrol").country, request, context.clock())

    def renew(self, request: exchange_pb2.RenewRequest) -> exchange_pb2.RenewReply:
        context = self.coordinator.context
        return context.enrolment.register.renew(self._caller("Renew"), request, context.clock())

    def present(self, *, authority: bytes, key: bytes, certificate: bytes) -> None:
        self.certificate = certificate

    def close(self) -> None:
        """Do nothing: there is no channel."""


class Interrupted(BaseException):
    """Raised where the coordinator's process ends."""


class NodeCalls:
    """Carries frames to open nodes; ends the coordinator's process before a message, if asked."""

    def __init__(
        self, nodes: Mapping[str, Node], stop_before: tuple[int, Phase] | None = None
    ) -> None:
        self._nodes, self._stop_before = nodes, stop_before

    def exchange(
        self, frames: Mapping[str, bytes], seconds: float, largest_reply: int
    ) -> Mapping[str, bytes]:
        for frame in frames.values():
            request = read_request(frame)
            if (request.round_number, request.phase) == self._stop_before:
                raise Interrupted
        return {country: self._nodes[country].handle(frame) for country, frame in frames.items()}


@dataclass(frozen=True)
class LogSource(Source):
    """An open log, exported to an officer as a daemon exports it over its socket."""

    log: AuditLog

    def ask(self, method: str, **params: Any) -> Any:
        answers: dict[str, Callable[..., Any]] = {
            "check_state": lambda: None,
            "log_head": lambda: export_head(self.log),
            "log_entries": lambda start, end: export_page(self.log, start, end),
        }
        return answers[method](**params)


@dataclass
class Homes:
    """All homes below one folder, the working directory, with one clock for every party."""

    folder: Path
    now: datetime
    passphrases: Mapping[str, str]
    """Passphrases by home, such as `DK/node`."""

    def clock(self) -> datetime:
        """Return the time of every party's clock."""
        return self.now

    def passphrase(self, *names: str) -> bytes:
        """Return the passphrase of a home, such as `DK`, `node`."""
        return self.passphrases["/".join(names)].encode()

    def coordinator_home(self) -> CoordinatorHome:
        return CoordinatorHome(self.folder / COORDINATOR)

    def node_home(self, country: str) -> NodeHome:
        return NodeHome(self.folder / country / NODE)

    def officer_home(self, country: str) -> OfficerHome:
        return OfficerHome(self.folder / country / OFFICER)

    def coordinator(self) -> OpenCoordinator:
        """Open the coordinator's home, as its daemon does when it starts."""
        return OpenCoordinator(self.coordinator_home(), self.passphrase(COORDINATOR), self.clock)

    def node_store(self, country: str) -> KeyStore:
        """Unlock a node's key store."""
        return KeyStore.open(self.node_home(country).keys, self.passphrase(country, NODE))

    def node(self, country: str, coordinator: OpenCoordinator) -> Node:
        """Open a node's home, as its daemon does when it starts; its random draws start again."""
        home, store = self.node_home(country), self.node_store(country)
        presented = credentials(home, store, self.clock).presented()
        return build_node(
            home,
            home.settings(),
            NodeKeyring.load(store),
            open_database(home.database, NODE_MIGRATIONS),
            identities=IdentityKeys(store),
            pinned_root=home.root.read_bytes(),
            around=Surroundings(
                fetch=ExchangeCalls(coordinator, presented.certificate).fetch,
                noise=ZeroNoise(),
                clock=self.clock,
                slots=AT_ONCE,
                entropy=random.Random(country).randbytes,  # noqa: S311 (the same draws every time)
            ),
        )

    def officer(self, country: str, coordinator: OpenCoordinator) -> OfficerSession:
        """Unlock an officer's home, as each of its commands does."""
        return OfficerSession.open(
            self.officer_home(country),
            self.passphrase(country, OFFICER),
            Terminal(quiet=True),
            self.clock,
            coordinator.call,
        )


def conduct(homes: Homes, coordinator: OpenCoordinator, run: str, carrier: NodeCalls) -> None:
    """Continue a run as its current attempt, at the homes' time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attempt_module, "utc_now", homes.clock)
        number = coordinator.context.runs.get(run).attempt
        services = LocalRunServices(coordinator)  # type: ignore[arg-type]
        attempt_module.run_attempt(coordinator.home, run, number, carrier, services, seconds=1)


def continue_run(homes: Homes, run: str) -> tuple[OpenCoordinator, dict[str, Node]]:
    """Open all homes, as after a restart, and continue a run to its end."""
    coordinator = homes.coordinator()
    nodes = {country: homes.node(country, coordinator) for country in PARTIES}
    for node in nodes.values():
        node.note_start()
        node.parts.record_store.refresh()
        node.sync()
        node.resume()
    supervise_runs(coordinator.context, runs_lost=True)
    conduct(homes, coordinator, run, NodeCalls(nodes))
    return coordinator, nodes
