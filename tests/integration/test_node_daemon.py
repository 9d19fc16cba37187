"""`pratique-node up` in its own process, against a real exchange over mutual TLS."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.proto.fleet_pb2 import ActivateNodeResponse
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from client.home import NodeHome
from client.settings import Enrolment
from governance.documents.permit import NodeKeys
from governance.runtime.database import open_database
from governance.runtime.local_rpc import LocalRpcFault, ask
from keys.certificates import Role, TransportAuthority, public_pem
from protocols.wire.encoding import digest
from server.exchange.relay import Relay
from server.exchange.serving import serve_exchange
from server.state.tables import MIGRATIONS
from tests.support import exchange_server
from tests.support.documents import FederationDocuments
from tests.support.enrolling import enrolment_of
from tests.support.exchange_server import (
    LOOPBACK,
    OpenExchange,
    ScriptedSuperLink,
    now,
)
from tests.support.joining_node import create_joining_node, keyring
from tests.support.keystore import PASSPHRASE
from tests.support.waiting import WAIT_SECONDS, wait_until

PROGRAM = Path(sys.executable).parent / "pratique-node"
SEAT = 77


class Site:
    """One node's home, its federation's documents, and the exchange to which it connects."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, create_joining_node(folder)
        self.authority = TransportAuthority.create("nordic-heart", now() - timedelta(days=60))
        state = open_database(folder / "exchange.db", MIGRATIONS)
        self.enrolment = enrolment_of(state, self.authority)
        self.documents = FederationDocuments(
            folder / "documents", now=now().replace(microsecond=0)
        ).publish_agreement()
        self.keys = NodeKeys.from_canonical(self.home.node_keys.read_bytes())
        self.documents.folders["DK"].set_node(self.keys)
        (self.home.officer / "country-DK.json").write_bytes(self.documents.sign_and_submit("DK"))
        self.passphrase = folder / "passphrase"
        self.passphrase.touch(mode=0o600)
        self.passphrase.write_bytes(PASSPHRASE)
        self.superlink = ScriptedSuperLink()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.exchange = self.open()
        self.enrol()

    def open(self) -> OpenExchange:
        """Open the exchange on a free port."""
        self.superlink.will("ActivateNode", ActivateNodeResponse(node_id=SEAT).SerializeToString())
        opened = OpenExchange(
            self.authority,
            Relay(self.superlink.forward, long_poll=10.0),
            enrolments=self.enrolment,
            documents=self,
        )
        key = load_ssh_public_key(self.keys.node_auth.encode())
        opened.open_session("DK", SEAT, public_key_to_bytes(key))
        return opened

    def fetch(self, path: str) -> bytes | None:
        return self.documents.store.read(path)

    def submit(self, *_: object) -> None:
        pytest.fail("no officer is connected here")

    def is_renewal(self, *_: object) -> bool:
        pytest.fail("no officer is connected here")

    def enrol(self, ago: timedelta = timedelta(0)) -> None:
        """Store an enrolment from so long ago in the node's home."""
        certificate = self.authority.issue(
            public_pem(keyring(self.home).transport_key),
            country="DK",
            role=Role.NODE,
            now=now() - ago,
            lifetime=timedelta(days=30),
        )
        self.home.certificate.write_bytes(certificate)
        self.home.authority.write_bytes(self.authority.certificate_pem)
        self.home.root.write_bytes(self.documents.pinned)
        enrolment = Enrolment(
            federation="nordic-heart",
            exchange=f"{LOOPBACK}:{self.exchange.port}",
            authority_digest=self.authority.digest,
            root_digest=digest(self.documents.pinned),
        )
        settings = self.home.settings()
        self.home.write_settings(settings.model_copy(update={"enrolment": enrolment}))

    def command(self, *arguments: str, unlock: bool = True) -> list[str]:
        secret = ["--passphrase-file", str(self.passphrase)] if unlock else []
        return [str(PROGRAM), *arguments, "--home", str(self.home.path), *secret]

    def up(self) -> subprocess.Popen[bytes]:
        """Start the daemon."""
        log = (self.folder / "node.log").open("ab")
        process = subprocess.Popen(self.command("up"), stdout=log, stderr=log, cwd=self.folder)
        log.close()
        self.processes.append(process)
        return process

    def waiting(self) -> str:
        return str(self.status().get("waiting_for", ""))

    def status(self) -> dict[str, Any]:
        try:
            status: dict[str, Any] = ask(self.home.socket, "status", 10.0)
        except LocalRpcFault:
            return {}
        return status

    def wait_until(self, condition: Callable[[], bool]) -> None:
        wait_until(condition, details=lambda: self.log)

    @property
    def log(self) -> str:
        return (self.folder / "node.log").read_text()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.exchange.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    opened = Site(tmp_path)
    yield opened
    opened.close()


def test_it_imports_documents_and_stops_within_seconds_during_a_long_poll(site: Site) -> None:
    process = site.up()
    site.wait_until(lambda: site.waiting() == "idle, connected")
    status = site.status()
    assert status["documents"]["own"]["version"] == 1
    assert status["documents"]["agreement"] == site.documents.agreed.title
    assert status["data"]["patients"] == 80
    assert "PullMessages" in site.superlink.methods
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_SECONDS) == 0
    assert time.monotonic() - begun < 8
    assert site.superlink.methods[-1] == "DeactivateNode"  # it signed off at the exchange
    assert not site.home.socket.exists()
    first, *lines = site.log.splitlines()
    assert first.startswith("starting the node of DK")
    assert all(json.loads(line) for line in lines)


def test_it_renews_its_certificate_and_uses_the_new_one(site: Site) -> None:
    site.enrol(timedelta(days=25))
    key, before = keyring(site.home).transport_key, site.home.certificate.read_bytes()
    site.up()
    site.wait_until(lambda: site.home.certificate.read_bytes() != before)
    site.wait_until(
        lambda: site.enrolment.register._unused == set()
    )  # the new certificate was used
    site.wait_until(lambda: site.waiting() == "idle, connected")
    assert keyring(site.home).transport_key != key
    assert site.enrolment.register.disputes() == []


def test_a_node_whose_certificate_has_ended_says_what_to_do(site: Site) -> None:
    site.enrol(timedelta(days=31))
    done = subprocess.run(site.command("up"), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Your certificate expired on" in done.stderr
    assert "new invitation" in done.stderr


def test_a_second_daemon_is_refused_and_a_killed_one_starts_again(site: Site) -> None:
    first = site.up()
    site.wait_until(lambda: site.waiting() == "idle, connected")
    second = subprocess.run(site.command("up"), capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "is running" in second.stderr
    assert site.waiting() == "idle, connected"
    first.kill()
    first.wait()
    assert site.home.socket.exists()
    site.superlink.will("ActivateNode", ActivateNodeResponse(node_id=SEAT).SerializeToString())
    site.up()
    site.wait_until(lambda: site.waiting() == "idle, connected")


def test_it_reconnects_when_the_exchange_is_reachable_again(site: Site) -> None:
    site.up()
    site.wait_until(lambda: site.waiting() == "idle, connected")
    port = site.exchange.port
    site.exchange.close()
    site.wait_until(lambda: site.waiting().startswith("waiting for the coordinator: "))
    assert str(port) in site.waiting()
    site.exchange = reopened(site, port)
    site.wait_until(lambda: site.waiting() == "idle, connected")


def reopened(site: Site, port: int) -> OpenExchange:
    """Open the exchange again at the same address."""
    with pytest.MonkeyPatch.context() as patch:
        inner = serve_exchange

        def same_port(service: Any, address: str, **credentials: Any) -> Any:
            return inner(service, f"{LOOPBACK}:{port}", **credentials)

        patch.setattr(exchange_server, "serve_exchange", same_port)
        return site.open()


def test_the_doctor_finds_nothing_wrong_and_an_interrupt_ends_the_daemon(site: Site) -> None:
    process = site.up()
    site.wait_until(lambda: site.waiting() == "idle, connected")
    arguments = site.command("doctor", "--json")
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    states = {check["name"]: check["state"] for check in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert set(states.values()) == {"good"}
    process.send_signal(signal.SIGINT)
    assert process.wait(WAIT_SECONDS) == 0


def test_pause_and_status_commands_work_while_the_daemon_runs(site: Site) -> None:
    site.up()
    site.wait_until(lambda: site.waiting() == "idle, connected")

    def run_command(*arguments: str) -> str:
        command = site.command(*arguments, unlock=False)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert run_command("pause", "--reason", "audit") == "paused: audit\n"
    assert "Now: paused: audit" in run_command("status")
    assert run_command("resume") == "idle, connected\n"
    assert isinstance(json.loads(run_command("status", "--json"))["log"]["size"], int)


def test_a_home_is_private(site: Site) -> None:
    home: NodeHome = site.home
    home.path.chmod(0o750)
    done = subprocess.run(site.command("up"), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "chmod" in done.stderr


@pytest.mark.slow
def test_a_restored_database_does_not_start_before_the_restored_command(site: Site) -> None:
    def run_command(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(site.command(*arguments), capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    copy = site.folder / "backup.db"
    copy.touch(mode=0o600)
    with (
        closing(sqlite3.connect(site.home.database)) as source,
        closing(sqlite3.connect(copy)) as to,
    ):
        source.backup(to)
    process = site.up()
    site.wait_until(lambda: site.waiting() == "idle, connected")
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_SECONDS) == 0
    for file in site.home.path.glob("state.db*"):
        file.unlink()
    shutil.copy(copy, site.home.database)
    for arguments in (("up",), ("doctor",)):
        code, output = run_command(*arguments)
        assert (code, "older than what this node" in output) == (1, True), output
    code, output = run_command("restored", "--yes")
    assert (code, "pratique-officer renew" in output) == (1, True), output
    time.sleep(1.1)  # documents have signing times in whole seconds
    site.documents.now = now().replace(microsecond=0)
    (site.home.officer / "country-DK.json").write_bytes(site.documents.sign_and_submit("DK"))
    code, output = run_command("restored", "--yes")
    assert (code, "State was restored from a copy of 1 log entry;" in output) == (0, True), output
    site.superlink.will("ActivateNode", ActivateNodeResponse(node_id=SEAT).SerializeToString())
    site.up()
    site.wait_until(lambda: site.waiting() == "idle, connected")
    assert site.status()["restored"]["before"] > 1
