"""The daemon's threads: reconnecting, ending, the local socket; without exchange and Flower."""

import base64
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from client.daemon import FIRST_PAUSE, LONGEST_PAUSE, NO_RECORDS, Daemon, ServerHooks, pause_after
from client.home import NodeHome
from client.status.health import NodeHealth
from governance.documents.study import Study
from governance.runtime.garbage import GarbageCollection
from governance.runtime.local_rpc import LocalRpcFault, ask
from governance.runtime.systemd import Supervisor
from protocols.errors import ReasonCode
from protocols.private_sum.messages import refusal_reply
from protocols.wire.channel import LinkFault
from protocols.wire.exchange_clock import ExchangeClock
from tests.support.exchange_server import RenewalNeverDue
from tests.support.node_federation import NodeFederation, code_of, log_lines
from tests.support.waiting import WAIT_SECONDS, wait_until


@dataclass
class Channel:
    """A channel that can be closed."""

    closed: threading.Event = field(default_factory=threading.Event)
    stuck: bool = False
    """Whether only closing the channel ends a wait for messages."""
    clock: ExchangeClock = field(default_factory=ExchangeClock)

    def close(self) -> None:
        self.closed.set()

    def poll(self, stop: threading.Event) -> None:
        """Wait for a message that does not come."""
        while self.stuck or not stop.is_set():
            if self.closed.wait(0.02):
                break
        if self.closed.is_set():
            raise LinkFault("The link to the exchange is closed")


@dataclass
class FakeFleetClient:
    """A stand-in for the Flower client: each start does what the script says."""

    channel: Channel
    script: list[Exception | None] = field(default_factory=list)
    starts: int = 0
    renewals: list[int] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)
    handle: Callable[[bytes], bytes] = lambda frame: frame
    finished: threading.Event = field(default_factory=threading.Event)
    """Set while no message is in progress."""

    def __post_init__(self) -> None:
        self.finished.set()

    def make(
        self,
        link: Any,
        handle: Callable[[bytes], bytes],
        hooks: ServerHooks,
    ) -> "FakeFleetClient":
        self.handle, self.hooks, self._on_ready = handle, hooks, hooks.on_ready
        return self

    def serve(self, stop: threading.Event) -> None:
        self.starts += 1
        fault = self.script.pop(0) if self.script else None
        if fault is not None:
            raise fault
        self._on_ready()
        self.ready.set()
        self.channel.poll(stop)
        self.finished.wait()


@dataclass
class Renewals(RenewalNeverDue):
    """Notes how often the node had connected each time it asked for a renewal."""

    fleet: FakeFleetClient

    def renew_if_due(self) -> None:
        self.fleet.renewals.append(self.fleet.starts)


@dataclass
class RunningDaemon:
    """A daemon in a thread."""

    daemon: Daemon
    home: NodeHome
    fleet: FakeFleetClient
    thread: threading.Thread

    def ask(self, method: str, **params: Any) -> Any:
        return ask(self.home.socket, method, 10.0, **params)

    def waiting(self) -> str:
        return str(self.ask("status")["waiting_for"])


def listens(path: Path) -> bool:
    """Return whether a daemon answers; its socket exists a moment before that."""
    with socket.socket(socket.AF_UNIX) as tried:
        return tried.connect_ex(str(path)) == 0


@pytest.fixture
def start(
    federation: NodeFederation, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., RunningDaemon]]:
    monkeypatch.setattr("client.daemon.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("client.daemon.LONGEST_PAUSE", 0.05)
    begun: list[RunningDaemon] = []

    def begin(*script: Exception | None) -> RunningDaemon:
        channel = Channel()
        fleet = FakeFleetClient(channel, list(script))
        home = federation.home("DK")
        health, supervisor = NodeHealth(home, federation.clock), Supervisor({})
        daemon = Daemon(
            federation.nodes["DK"],
            channel,  # type: ignore[arg-type]
            fleet.make,
            home,
            health=health,
            supervisor=supervisor,
            renewal=Renewals(fleet),
        )
        thread = threading.Thread(target=daemon.run)
        thread.start()
        begun.append(RunningDaemon(daemon, home, fleet, thread))
        wait_until(lambda: listens(home.socket))
        return begun[-1]

    yield begin
    for running in begun:
        running.daemon.stop()
        running.thread.join(WAIT_SECONDS)
        assert not running.thread.is_alive()


Start = Callable[..., RunningDaemon]


def test_pauses_double_up_to_half_a_minute() -> None:
    longest = [pause_after(n, jitter=lambda _, high: high) for n in range(12)]
    assert longest[:4] == [0.5, 1.0, 2.0, 4.0]
    assert longest[-1] == LONGEST_PAUSE
    assert sorted(longest) == longest


def test_pauses_differ_and_stay_within_bounds() -> None:
    pauses = {pause_after(5) for _ in range(50)}
    assert len(pauses) > 40
    assert all(8.0 <= pause <= 16.0 for pause in pauses)
    assert all(pause_after(0) >= FIRST_PAUSE for _ in range(50))


def test_a_connected_node_reports_that_it_is_connected(start: Start) -> None:
    running = start(None)
    assert running.fleet.ready.wait(WAIT_SECONDS)
    wait_until(lambda: running.waiting() == "idle, connected")


def test_a_node_connects_only_once_its_records_are_loaded(
    start: Start, federation: NodeFederation
) -> None:
    """So no request meets records that cannot be used, and no reply depends on one record."""
    good = (federation.home("DK").path / "records.csv").read_text()
    federation.put_records("DK", good + "p7,47,Q,0\n")
    federation.restart("DK")
    running = start()
    wait_until(lambda: NO_RECORDS in running.waiting())
    assert running.fleet.starts == 0
    federation.put_records("DK", good)
    running.daemon._wake.set()
    assert running.fleet.ready.wait(WAIT_SECONDS)


def test_a_node_connects_again_after_link_faults(start: Start) -> None:
    link_fault = LinkFault("The exchange at h:1 does not answer", why="refused")
    running = start(link_fault, link_fault, link_fault, None)
    assert running.fleet.ready.wait(WAIT_SECONDS)
    assert running.fleet.starts == 4


def test_while_the_link_is_down_the_reason_is_shown(start: Start) -> None:
    link_fault = LinkFault("The exchange at h:1 does not answer")
    running = start(*[link_fault] * 1000)
    wait_until(lambda: "h:1 does not answer" in running.waiting())
    assert running.waiting().startswith("waiting for the coordinator: ")


def test_a_fault_in_flower_does_not_end_the_node(start: Start) -> None:
    running = start(ValueError("pull failed"), RuntimeError("odd"), None)
    assert running.fleet.ready.wait(WAIT_SECONDS)


def test_the_daemon_ends_within_seconds_during_a_long_poll(start: Start) -> None:
    running = start(None)
    assert running.fleet.ready.wait(WAIT_SECONDS)
    begun = time.monotonic()
    running.daemon.stop()
    running.thread.join(WAIT_SECONDS)
    assert not running.thread.is_alive()
    assert time.monotonic() - begun < 3
    assert not running.home.socket.exists()


def test_a_message_in_progress_is_finished_first(start: Start) -> None:
    running = start(None)
    assert running.fleet.ready.wait(WAIT_SECONDS)
    running.fleet.finished.clear()
    running.daemon.stop()
    time.sleep(0.2)
    assert not running.fleet.channel.closed.is_set()
    running.fleet.finished.set()
    running.thread.join(WAIT_SECONDS)
    assert running.fleet.channel.closed.is_set()


def test_a_node_whose_sign_out_hangs_is_disconnected(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.daemon.FINISH_SECONDS", 0.3)
    running = start(None)
    running.fleet.channel.stuck = True
    assert running.fleet.ready.wait(WAIT_SECONDS)
    running.daemon.stop()
    running.thread.join(WAIT_SECONDS)
    assert not running.thread.is_alive()
    assert running.fleet.channel.closed.is_set()


def test_start_and_stop_are_logged(start: Start, federation: NodeFederation) -> None:
    running = start(None)
    assert running.fleet.ready.wait(WAIT_SECONDS)
    running.daemon.stop()
    running.thread.join(WAIT_SECONDS)
    entries = log_lines(federation.nodes["DK"])
    assert '"kind":"node-started"' in str(entries)
    assert '"kind":"node-stopped"' in entries[-1]


def test_the_local_socket_pauses_and_resumes(
    start: Start, federation: NodeFederation, study: Study
) -> None:
    running = start(None)
    assert running.fleet.ready.wait(WAIT_SECONDS)
    assert running.ask("pause", reason="audit")["waiting_for"] == "paused: audit"
    frame = federation.run(study).request("bundle", "DK")
    assert code_of(running.fleet.handle(frame)) == "paused"
    running.ask("resume")
    assert code_of(running.fleet.handle(federation.run(study).request("bundle", "DK"))) is None


def test_the_local_socket_imports_documents_of_the_officer(
    start: Start, federation: NodeFederation
) -> None:
    running = start(None)
    bundle = federation.documents.sign_and_submit("DK")
    answer = running.ask("deliver", bundle=base64.b64encode(bundle).decode())
    assert answer["version"] == federation.documents.folders["DK"].version


@pytest.mark.parametrize("bundle", ["not base64!", base64.b64encode(b"{}").decode()])
def test_the_local_socket_refuses_bytes_that_are_no_bundle(start: Start, bundle: str) -> None:
    with pytest.raises(LocalRpcFault):
        start(None).ask("deliver", bundle=bundle)


def test_the_local_socket_returns_the_log(start: Start) -> None:
    running = start(None)
    head = running.ask("log_head")
    assert head["checkpoint"].startswith("pratique/dk/node\n")
    page = running.ask("log_entries", start=0, end=head["size"])
    assert len(page["entries"]) == head["size"] >= 1
    assert running.ask("check_state") is None


@pytest.mark.parametrize("method", ["stop", "handle", "", "__class__"])
def test_the_local_socket_refuses_other_requests(start: Start, method: str) -> None:
    with pytest.raises(LocalRpcFault, match="does not know the request"):
        start(None).ask(method)


def test_upkeep_continues_after_any_fault(
    start: Start, federation: NodeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def do_upkeep() -> None:
        calls.append(1)
        raise RuntimeError("odd")

    monkeypatch.setattr(federation.nodes["DK"], "do_upkeep", do_upkeep)
    running = start(None)
    wait_until(lambda: len(calls) >= 1)
    before = len(calls)
    running.daemon._wake.set()
    wait_until(lambda: len(calls) > before)


def test_upkeep_leaves_objects_in_use_out_of_garbage_collections(
    start: Start, federation: NodeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected: list[int] = []
    monkeypatch.setattr(
        GarbageCollection, "collect_if_changed", lambda _, readings: collected.append(readings)
    )
    start(None)
    wait_until(lambda: collected)
    assert collected[0] == federation.nodes["DK"].parts.record_store.readings


@pytest.mark.parametrize(
    ("code", "soonest", "fetches"),
    [
        (ReasonCode.DOCUMENTS_BEHIND, -1.0, True),
        (ReasonCode.DOCUMENTS_BEHIND, 60.0, False),
        (ReasonCode.STALE, -1.0, False),
    ],
)
def test_a_documents_behind_refusal_starts_a_fetch_unless_one_was_recent(
    start: Start,
    federation: NodeFederation,
    monkeypatch: pytest.MonkeyPatch,
    code: ReasonCode,
    soonest: float,
    fetches: bool,
) -> None:
    calls: list[int] = []
    node = federation.nodes["DK"]
    monkeypatch.setattr("client.daemon.MIN_UPKEEP_PAUSE_SECONDS", soonest)
    monkeypatch.setattr(node, "do_upkeep", lambda: calls.append(1))
    monkeypatch.setattr(node, "handle", lambda frame: refusal_reply(code))
    running = start(None)
    running.fleet.ready.wait(WAIT_SECONDS)
    wait_until(lambda: not running.daemon._wake.is_set() and len(calls) >= 1)
    time.sleep(0.1)
    before = len(calls)
    running.fleet.handle(b"frame")
    if fetches:
        wait_until(lambda: len(calls) > before)
    else:
        time.sleep(0.2)
        assert len(calls) == before


def test_studies_are_prepared_before_the_first_pull(
    start: Start, federation: NodeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow first reply delays the later ones of its phase, which use the same reply slots."""
    order: list[str] = []
    serve = FakeFleetClient.serve

    def served(fleet: FakeFleetClient, stop: threading.Event) -> None:
        order.append("served")
        serve(fleet, stop)

    monkeypatch.setattr(federation.nodes["DK"], "prepare", lambda: order.append("prepared"))
    monkeypatch.setattr(FakeFleetClient, "serve", served)
    start(None).fleet.ready.wait(WAIT_SECONDS)
    assert order[:2] == ["prepared", "served"]


def test_a_node_renews_its_certificate_only_while_it_is_connected(
    start: Callable[..., RunningDaemon],
) -> None:
    """Before it has signed in, its session does not act for the node."""
    down = LinkFault("no exchange")
    running = start(down, down, down)
    wait_until(lambda: running.fleet.renewals)
    assert min(running.fleet.renewals) > len((down, down, down))
