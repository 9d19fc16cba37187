"""A whole federation on this machine, connected as in real use; only its noise is zero.

It has a real SuperLink with its executor and server apps, the exchange over mutual TLS, signed
documents, and the nodes' daemons in threads, each behind a proxy that can misbehave. The nodes'
random bits for sampling and rounding come from a stream that starts again with each study, so that
two runs over the same records make the same model, bit for bit, whatever the network does.
"""

import copy
import os
import random
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from client.border.reply_timing import ReplySlots
from client.daemon import Daemon
from client.startup import fleet_server
from client.state.incarnation import begin
from client.status.health import NodeHealth
from governance.documents.permit import PermitConditions
from governance.documents.study import Study
from governance.runtime.local_rpc import LocalRpcServer
from governance.runtime.systemd import Supervisor
from keys.certificates import TransportAuthority, new_node_auth_key
from protocols.numerics.noise import NoiseSource
from protocols.wire.channel import ExchangeLink
from server.errors import CoordinatorFault
from server.exchange.forwarding import Forwarding
from server.exchange.node_sessions import NodeSessions
from server.exchange.relay import Relay
from server.flower.superlink import SuperLink
from server.home import HOME_VARIABLE, CoordinatorHome
from tests.support.coordinator_services import FEDERATION, Coordinator
from tests.support.documents import COUNTRIES, study_fields, with_schedule
from tests.support.enrolling import node_statement
from tests.support.exchange_server import (
    Caller,
    LoopThread,
    OpenExchange,
    RenewalNeverDue,
    caller,
    now,
)
from tests.support.node_federation import NodeFederation, Nodes, keyring_of
from tests.support.proxy import FaultProxy
from tests.support.waiting import WAIT_SECONDS, wait_until
from tests.support.zero_noise import ZeroNoise

ROOT = Path(__file__).parents[2]
"""Processes run the code in this folder, whatever is installed."""
DAY = timedelta(days=1)
CHEAP_NOISE = 10**6
"""A noise so large that a study costs almost nothing. The drawn noise is zero."""
ROOMY = [{"register": "patients", "period_days": 365, "epsilon": 30.0, "delta": 1e-4, "order": 8}]
Dial = Callable[[ExchangeLink], Any]


@dataclass
class LiveFederation(NodeFederation):
    """A federation that uses this machine's clock."""

    streams: dict[str, random.Random] = field(default_factory=dict)

    def __post_init__(self) -> None:
        today = datetime.now(UTC)
        dates = {
            "effective": today - DAY,
            "renewal": today + 300 * DAY,
            "sunset": today + 365 * DAY,
        }
        self.changes = {"budget": ROOMY} | {n: f"{d:%Y-%m-%d}" for n, d in dates.items()}
        self.began = today.replace(microsecond=0)
        super().__post_init__()

    def clock(self) -> datetime:
        return datetime.now(UTC)

    def entropy(self, country: str) -> Callable[[int], bytes]:
        """Return a country's source of random bytes: its present stream."""

        def draw(size: int) -> bytes:
            return self.streams[country].randbytes(size)

        return draw

    def begin_streams(self) -> None:
        """Start the nodes' streams of random bytes again."""
        for country in COUNTRIES:
            self.streams[country] = random.Random(country)  # noqa: S311 (the same every time)

    def allowed(self, name: str, *, noise_std: int = CHEAP_NOISE, **changes: Any) -> Study:
        """Propose a study and have every country approve it."""
        today = self.documents.now = datetime.now(UTC).replace(microsecond=0)
        dates = {"created": f"{today - DAY:%Y-%m-%d}", "expires": f"{today + 60 * DAY:%Y-%m-%d}"}
        fields = study_fields(self.documents.agreed, id=name, **dates | changes)
        study = with_schedule(Study.model_validate(fields), noise_std)
        self.documents.propose(study)
        for country in COUNTRIES:
            self.permit(country, study, conditions=PermitConditions(expires=today + 30 * DAY))
        self.sync()
        return study


@dataclass
class LiveParts:
    """All parts of a running federation, for a test to control."""

    folder: Path
    federation: LiveFederation
    coordinator: Coordinator
    superlink: SuperLink
    exchange: OpenExchange
    proxies: dict[str, FaultProxy] = field(default_factory=dict)
    daemons: dict[str, Daemon] = field(default_factory=dict)
    links: dict[str, Any] = field(default_factory=dict)
    _threads: dict[str, threading.Thread] = field(default_factory=dict)
    _endings: list[Callable[[], object]] = field(default_factory=list)
    _identities: dict[str, tuple[bytes, Caller]] = field(default_factory=dict)

    @classmethod
    def start(cls, *, noise: NoiseSource | None = None) -> Self:
        """Start everything except the nodes; without `noise`, their noise is zero."""
        folder = Path(tempfile.mkdtemp(prefix="wired-"))  # pytest's own may be too long
        federation = LiveFederation(folder / "f", noise=noise or ZeroNoise())
        home = CoordinatorHome(folder / "c")
        environment = {HOME_VARIABLE: os.fspath(home.path), "PYTHONPATH": os.fspath(ROOT)}
        superlink = SuperLink(folder / "s", environment=environment)
        superlink.start()
        thread, forwarding = LoopThread(), Forwarding()
        relay = Relay(forwarding)
        sessions = NodeSessions(relay, superlink)
        sessions.start(thread.loop)
        thread.loop.call_soon_threadsafe(forwarding.open, superlink)
        coordinator = Coordinator(
            federation,
            home.path,
            flower=superlink,  # type: ignore[arg-type]  # the real one, not the scripted one
            sessions=sessions,  # type: ignore[arg-type]  # as above
        )
        rpc_server = LocalRpcServer(home.socket, coordinator._answer)
        exchange = OpenExchange(
            TransportAuthority.create(FEDERATION, now()),
            relay,
            enrolments=None,
            documents=coordinator.context.documents,
            thread=thread,
        )
        live = cls(folder, federation, coordinator, superlink, exchange)
        live._endings += [rpc_server.close, lambda: thread.run(forwarding.close()), exchange.close]
        return live

    def settle(self, country: str, dial: Dial = lambda link: link) -> None:
        """Start a country's node behind its proxy; `dial` may wrap its link."""
        key, public = new_node_auth_key()
        self.coordinator.context.sessions.open_session(node_statement(country, node_auth=public))
        self.proxies[country] = FaultProxy(
            self.exchange.port, self.exchange.thread, seed=COUNTRIES.index(country)
        )
        self._identities[country] = key, caller(self.exchange.authority, country)
        self.daemons[country] = self._run(self.federation, country, country, dial)

    def run_copy(self, country: str) -> Daemon:
        """Copy a running node's folder, and run the copy beside it."""
        twin = copy.copy(self.federation)
        twin.folder = self.folder / "t"
        twin.nodes = Nodes(twin.start)
        original = self.federation.home(country).path
        ignored = shutil.ignore_patterns(self.federation.home(country).socket.name)
        shutil.copytree(original, twin.home(country).path, ignore=ignored)
        twin.nodes[country] = twin.made(country)
        daemon = self._run(twin, country, f"copy of {country}")
        self._endings.insert(0, twin.close)
        self._endings.insert(0, lambda: self._threads[f"copy of {country}"].join(WAIT_SECONDS))
        self._endings.insert(0, daemon.stop)
        return daemon

    def _run(
        self, federation: LiveFederation, country: str, name: str, dial: Dial = lambda link: link
    ) -> Daemon:
        """Start the node in a federation's folder, with the identity of its country."""
        key, who = self._identities[country]
        link = dial(who.link(self.proxies[country].port, self.exchange.authority))
        self.links[name] = link
        node = federation.restart(
            country, fetch=link.fetch, slots=ReplySlots(), entropy=federation.entropy(country)
        )
        keyring = replace(keyring_of(country), node_auth_key=key)
        incarnation = begin(node.parts.engine)
        serve = fleet_server(keyring, incarnation)
        home = federation.home(country)
        daemon = Daemon(
            node,
            link,
            serve,
            home,
            health=NodeHealth(home, now),
            supervisor=Supervisor({}),
            renewal=RenewalNeverDue(),
        )
        self._threads[name] = threading.Thread(target=daemon.run, name=name)
        self._threads[name].start()
        return daemon

    def settle_all(self) -> Self:
        """Start every country's node and wait until all are connected."""
        for country in COUNTRIES:
            self.settle(country)
        wait_until(lambda: all(self.coordinator.context.sessions.online().values()))
        return self

    def launch(self, study: Study) -> str:
        """Launch a study once every node is connected; the nodes' streams start again."""
        self.federation.begin_streams()
        return str(wait_until(lambda: self._launched(study)))

    def _launched(self, study: Study) -> str:
        try:
            return str(self.coordinator.ask("study_launch", name=study.id)["run"])
        except CoordinatorFault as fault:
            if "is not connected" not in fault.what:
                raise
            return ""

    def over(self, study: Study) -> dict[str, Any]:
        """Return a run's status if it is over, else an empty dictionary."""
        status: dict[str, Any] = self.coordinator.ask("study_status", name=study.id)
        return status if status["over"] else {}

    def close(self) -> None:
        """Stop everything and delete the folder."""
        for daemon in self.daemons.values():
            daemon.stop()
        for thread in self._threads.values():
            thread.join(WAIT_SECONDS)
        for proxy in self.proxies.values():
            proxy.close()
        for end in self._endings:
            end()
        self.superlink.close()
        self.federation.close()
        shutil.rmtree(self.folder, ignore_errors=True)
