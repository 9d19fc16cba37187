"""Health and metrics of a node: counts, ready or not and why, alive or stuck."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from client import daemon as daemon_module
from client.daemon import Daemon, ServerHooks
from client.home import NodeHome
from client.status.health import (
    SERVE,
    UPKEEP,
    NodeHealth,
    expires_at,
    phase_of,
    refusal_of,
)
from client.status.summary import LinkStatus
from governance.documents.study import Study
from governance.runtime.health import HealthServer
from governance.runtime.systemd import Supervisor
from keys.certificates import Role, TransportAuthority, new_transport_key, public_pem
from protocols.errors import ReasonCode
from protocols.private_sum.messages import refusal_reply
from protocols.wire.channel import LinkFault
from tests.support.documents import COUNTRIES
from tests.support.exchange_server import RenewalNeverDue
from tests.support.node_federation import NodeFederation
from tests.support.waiting import WAIT_SECONDS, wait_until


@pytest.fixture
def home(federation: NodeFederation) -> NodeHome:
    """The node's folder with certificates that are valid for a month."""
    _ = federation.nodes["DK"]  # started before its folder changes
    found, now = federation.home("DK"), federation.clock()
    authority = TransportAuthority.create("nordic-heart", now)
    found.authority.write_bytes(authority.certificate_pem)
    found.certificate.write_bytes(
        authority.issue(
            public_pem(new_transport_key()),
            country="DK",
            role=Role.NODE,
            now=now,
            lifetime=timedelta(days=30),
        )
    )
    return found


@pytest.fixture
def health(home: NodeHome, federation: NodeFederation) -> NodeHealth:
    new_health = NodeHealth(home, federation.clock)
    new_health.record_upkeep(federation.nodes["DK"].status(LinkStatus(connected=True)))
    new_health.set_link()
    return new_health


def bad(health: NodeHealth) -> dict[str, str]:
    return {name: check.says for name, check in health.ready().items() if not check.good}


def shown(health: NodeHealth) -> str:
    return generate_latest(health.metrics.registry).decode()


def test_a_node_without_faults_is_ready(health: NodeHealth) -> None:
    assert bad(health) == {}
    assert set(health.ready()) == {
        "serve", "tend", "link", "certificates", "documents", "records", "pause",
    }  # fmt: skip


def test_a_node_is_not_ready_before_the_first_check(
    home: NodeHome, federation: NodeFederation
) -> None:
    assert set(bad(NodeHealth(home, federation.clock))) == {"link", "documents", "records"}


def test_a_node_without_a_link_is_not_ready_and_says_why(health: NodeHealth) -> None:
    health.set_link("The exchange at h:1 does not answer")
    assert bad(health) == {"link": "The exchange at h:1 does not answer"}
    assert "pratique_node_link_up 0.0" in shown(health)
    health.set_link()
    assert bad(health) == {}


def test_a_paused_node_is_not_ready(health: NodeHealth, federation: NodeFederation) -> None:
    federation.nodes["DK"].pause("audit")
    health.record_status(federation.nodes["DK"].status(LinkStatus()))
    assert set(bad(health)) == {"pause"}


def test_a_node_with_expired_documents_is_not_ready(
    health: NodeHealth, federation: NodeFederation
) -> None:
    federation.documents.now += timedelta(days=30)
    health.record_status(federation.nodes["DK"].status(LinkStatus()))
    assert "documents" in bad(health)


def test_a_node_with_an_expired_certificate_is_not_ready(
    health: NodeHealth, federation: NodeFederation
) -> None:
    federation.documents.now += timedelta(days=31)
    assert bad(health) == {"certificates": "expired: certificate"}


def test_a_file_that_is_no_certificate_has_no_expiry(tmp_path: Path) -> None:
    assert expires_at(tmp_path / "none.pem") is None
    (tmp_path / "bad.pem").write_bytes(b"no certificate")
    assert expires_at(tmp_path / "bad.pem") is None


def test_a_stuck_loop_is_reported(health: NodeHealth) -> None:
    health.progress.moved(SERVE, -1)
    health.progress.moved(UPKEEP, 60)
    loops = health.live()
    assert (loops[SERVE].good, loops[UPKEEP].good) == (False, True)
    assert set(bad(health)) == {SERVE}


def test_expiries_and_versions_are_those_of_the_documents(
    health: NodeHealth, federation: NodeFederation
) -> None:
    metrics, view = shown(health), federation.documents.view()
    for name in ("agreement", "metadata", "certificate", "authority", *COUNTRIES):
        assert f'pratique_expires_timestamp_seconds{{what="{name}"}}' in metrics
    other = COUNTRIES[-1]
    version = view.versions.countries[other]
    assert f'pratique_document_version{{document="{other}"}} {float(version)}' in metrics


def test_the_spent_part_of_each_ledger_is_shown(health: NodeHealth) -> None:
    assert "pratique_node_ledger_spent_ratio{register=" in shown(health)
    assert "} 1.0" in next(
        line for line in shown(health).splitlines() if line.startswith("pratique_node_ledger_left")
    )


def test_phase_and_outcome_are_read_from_request_and_reply(
    federation: NodeFederation, study: Study, health: NodeHealth
) -> None:
    frame = federation.run(study).request("bundle", "DK")
    reply = federation.nodes["DK"].handle(frame)
    assert (phase_of(frame), refusal_of(reply)) == ("bundle", None)
    assert refusal_of(refusal_reply(ReasonCode.BUDGET)) == "budget"
    for junk in (b"", b"junk", b"\xff" * 50):
        assert phase_of(junk) == "unreadable"
        health.count_reply(junk, refusal_reply(ReasonCode.MALFORMED), 0.05)
    assert 'outcome="malformed",phase="other"} 3.0' in shown(health)


SHORT_CYCLE = 0.5


class Channel:
    """A channel that carries no message."""

    def close(self) -> None:
        return


class Stuck:
    """A server whose loop turns until the test makes it hang."""

    def __init__(self) -> None:
        self.hang, self.drop = threading.Event(), threading.Event()

    def make(self, _: Any, __: Any, hooks: ServerHooks) -> "Stuck":
        self.connected, self.turned = hooks.on_ready, hooks.before_pull
        return self

    def serve(self, stop: threading.Event) -> None:
        if not self.drop.is_set():
            self.connected()
        while not stop.wait(0.01) and not self.drop.is_set():
            if not self.hang.is_set():
                self.turned()
        raise LinkFault("closed")


class Supervised:
    """A daemon in a thread, with a service manager that the test provides."""

    def __init__(self, federation: NodeFederation, folder: Path, home: NodeHome) -> None:
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(folder / "s"))
        self.manager.settimeout(WAIT_SECONDS)
        self.health, self.server = NodeHealth(home, federation.clock), Stuck()
        given = {"NOTIFY_SOCKET": str(folder / "s"), "WATCHDOG_USEC": "100000"}
        self.daemon = Daemon(
            federation.nodes["DK"],
            Channel(),  # type: ignore[arg-type]
            self.server.make,
            home,
            health=self.health,
            supervisor=Supervisor(given),
            renewal=RenewalNeverDue(),
        )
        self.thread = threading.Thread(target=self.daemon.run)
        self.endpoint = HealthServer("127.0.0.1:0", self.health.report)
        self.thread.start()

    def heard(self) -> list[str]:
        return self.manager.recv(4096).decode().splitlines()

    def until_heard(self, *wanted: str) -> None:
        left = set(wanted)
        while left:
            left -= set(self.heard())

    def asked(self, path: str) -> tuple[int, dict[str, Any]]:
        url = f"http://127.0.0.1:{self.endpoint.port}{path}"
        try:
            with urllib.request.urlopen(url) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())


@pytest.fixture
def short_cycle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count a loop as stuck after a moment; on a busy machine, one that works may count, too."""
    monkeypatch.setattr(daemon_module, "CYCLE_SECONDS", SHORT_CYCLE)


@pytest.fixture
def supervised(
    federation: NodeFederation, tmp_path_factory: pytest.TempPathFactory, home: NodeHome
) -> Iterator[Supervised]:
    running = Supervised(federation, tmp_path_factory.mktemp("s"), home)
    try:
        yield running
    finally:
        running.daemon.stop()
        running.thread.join(WAIT_SECONDS)
        running.endpoint.close()
        running.manager.close()
    assert not running.thread.is_alive()


def test_the_manager_is_notified_of_ready_connected_and_alive(supervised: Supervised) -> None:
    supervised.until_heard("READY=1", "STATUS=connected", "WATCHDOG=1")


def test_a_lost_link_ends_readiness_and_is_reported_to_the_manager(
    supervised: Supervised,
) -> None:
    supervised.until_heard("STATUS=connected")
    supervised.server.drop.set()
    supervised.until_heard("STATUS=closed")
    status, body = supervised.asked("/health/ready")
    assert (status, body["checks"]["link"]) == (503, {"good": False, "says": "closed"})
    assert supervised.asked("/health/live")[0] == 200


@pytest.mark.usefixtures("short_cycle")
def test_a_stuck_serve_loop_ends_the_heartbeat_and_fails_the_liveness_check(
    supervised: Supervised,
) -> None:
    supervised.until_heard("WATCHDOG=1")
    supervised.server.hang.set()
    wait_until(lambda: supervised.asked("/health/live")[0] != 200)
    status, body = supervised.asked("/health/live")
    assert (status, body["checks"]["serve"]["says"]) == (503, "stuck")
    assert quiet(supervised.manager)
    supervised.server.hang.clear()
    supervised.until_heard("WATCHDOG=1")


def quiet(manager: socket.socket) -> bool:
    """Return whether no heartbeat comes in five intervals, after earlier ones are read."""
    manager.settimeout(0.1)
    for _ in range(100):
        try:
            manager.recv(4096)
        except TimeoutError:
            break
    manager.settimeout(0.5)
    try:
        manager.recv(4096)
    except TimeoutError:
        return True
    finally:
        manager.settimeout(WAIT_SECONDS)
    return False


@pytest.mark.usefixtures("short_cycle")
def test_a_message_in_progress_may_take_longer_than_a_wait(
    supervised: Supervised,
    federation: NodeFederation,
    study: Study,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    supervised.until_heard("WATCHDOG=1")
    supervised.server.hang.set()
    begun, go_on = threading.Event(), threading.Event()
    handle = federation.nodes["DK"].handle

    def slow(frame: bytes) -> bytes:
        begun.set()
        go_on.wait(WAIT_SECONDS)
        return handle(frame)

    monkeypatch.setattr(federation.nodes["DK"], "handle", slow)
    frame = federation.run(study).request("bundle", "DK")
    working = threading.Thread(target=supervised.daemon._handle, args=(frame,))
    working.start()
    assert begun.wait(WAIT_SECONDS)
    time.sleep(2 * SHORT_CYCLE)
    assert supervised.asked("/health/live")[0] == 200
    go_on.set()
    working.join(WAIT_SECONDS)
