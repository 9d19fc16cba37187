"""Searches everything that a node prints or serves, except its replies, for planted records.

That is: logs, metrics, health, the service manager's status line, standard output and error. A
name, id, birth date or comment from the records in any of them is a leak, whatever fails.
"""

import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from client.daemon import Daemon, ServerHooks
from client.status.health import NodeHealth
from governance.documents.study import Study
from governance.runtime.health import HealthServer
from governance.runtime.systemd import Supervisor
from protocols.private_sum.coordinator_round import OpenedSum
from tests.support.captured_logs import Lines, restored_logging
from tests.support.exchange_server import RenewalNeverDue
from tests.support.node_federation import PATIENTS, NodeFederation, code_of
from tests.support.waiting import WAIT_SECONDS, wait_until

PLANTED = ("Kowalski", "Ødegård", "1961-04-12", "CPR-120461", "hemicrania", "4711€")


def planted_records(*, age: str = "47") -> str:
    """Return records with a planted text in every free column; `age` is the first patient's."""
    rows = [
        f"CPR-120461-{n},{47 if n else age},{'MF'[n % 2]},{int(n % 4 == 0)},"
        "Kowalski,1961-04-12,hemicrania"
        for n in range(PATIENTS)
    ]
    return "\n".join(["id,age,sex,disease,name,born,remark", *rows]) + "\n"


class Channel:
    """A channel that carries no message."""

    def close(self) -> None:
        return


class Watched:
    """One node's daemon in a thread, with all of its outputs."""

    def __init__(self, federation: NodeFederation, folder: Path) -> None:
        self.node, self.home = federation.nodes["DK"], federation.home("DK")
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(folder / "notify"))
        self.health = NodeHealth(self.home, federation.clock)
        supervisor = Supervisor({"NOTIFY_SOCKET": str(folder / "notify")})
        self.daemon = Daemon(
            self.node,
            Channel(),  # type: ignore[arg-type]
            self.make,
            self.home,
            health=self.health,
            supervisor=supervisor,
            renewal=RenewalNeverDue(),
        )
        self.thread = threading.Thread(target=self.daemon.run)
        self.endpoint = HealthServer("127.0.0.1:0", self.health.report)
        self.serving = threading.Event()

    def make(
        self,
        link: Any,
        handle: Callable[[bytes], bytes],
        hooks: ServerHooks,
    ) -> "Watched":
        self.handle, self.connected = handle, hooks.on_ready
        return self

    def serve(self, stop: threading.Event) -> None:
        self.connected()
        self.serving.set()
        stop.wait()

    def show(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.endpoint.port}{path}") as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()

    def datagrams(self) -> str:
        """Return every datagram that the service manager got."""
        self.manager.setblocking(False)
        datagrams = []
        while True:
            try:
                datagrams.append(self.manager.recv(4096).decode())
            except BlockingIOError:
                return "\n".join(datagrams)

    def close(self) -> None:
        self.daemon.stop()
        self.thread.join(WAIT_SECONDS)
        self.endpoint.close()
        self.manager.close()
        assert not self.thread.is_alive()


@pytest.fixture
def lines() -> Iterator[Lines]:
    with restored_logging() as configure:
        stream = Lines()
        configure(stream=stream)
        yield stream


@pytest.fixture
def watched(federation: NodeFederation, short: Path, lines: Lines) -> Iterator[Watched]:
    federation.put_records("DK", planted_records())
    running = Watched(federation, short)
    running.thread.start()
    assert running.serving.wait(WAIT_SECONDS)
    yield running
    running.close()


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a name short enough for a socket."""
    return tmp_path_factory.mktemp("n")


def everything(watched: Watched, lines: Lines, capfd: pytest.CaptureFixture[str]) -> str:
    """Return all outputs so far."""
    pages = [watched.show(path) for path in ("/metrics", "/health/live", "/health/ready")]
    printed = capfd.readouterr()
    return "\n".join([lines.getvalue(), watched.datagrams(), *pages, printed.out, printed.err])


def search(said: str) -> None:
    for token in PLANTED:
        assert token not in said


def do_upkeep(watched: Watched) -> None:
    """Let the node do its upkeep now."""
    watched.node.do_upkeep()
    watched.health.record_upkeep(watched.node.status(watched.daemon._link_status))


def test_a_whole_run_reveals_nothing_about_its_patients(
    federation: NodeFederation,
    study: Study,
    watched: Watched,
    lines: Lines,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    do_upkeep(watched)
    through_the_daemon = SimpleNamespace(handle=watched.handle)
    with monkeypatch.context() as patch:
        patch.setitem(federation.nodes, "DK", through_the_daemon)
        opened_sum = federation.ready(study).sum(1, "histogram")
    assert isinstance(opened_sum, OpenedSum)
    outputs = everything(watched, lines, capfd)
    assert '{outcome="answered",phase="contribute"} 1.0' in outputs
    search(outputs)


@pytest.mark.parametrize("cell", ["Kowalski", "1961-04-12", "4711€", "Ødegård"])
def test_an_unreadable_cell_is_quoted_by_the_doctor_only(
    federation: NodeFederation,
    study: Study,
    watched: Watched,
    lines: Lines,
    capfd: pytest.CaptureFixture[str],
    cell: str,
) -> None:
    (watched.home.path / "records.csv").write_text(planted_records(age=cell))
    do_upkeep(watched)
    assert cell in (watched.node.status(watched.daemon._link_status).data.fault or "")
    frame = federation.run(study).request("bundle", "DK")
    assert code_of(watched.handle(frame)) is None  # by the records that were loaded before
    outputs = everything(watched, lines, capfd)
    assert "records cannot be read" in outputs
    assert '"good": false' in outputs
    search(outputs)


@pytest.mark.parametrize("part", ["gate", "record_store", "runs", "ledger"])
def test_faults_during_a_message_quote_no_record(
    federation: NodeFederation,
    study: Study,
    watched: Watched,
    lines: Lines,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError(f"row 3: {PLANTED}") from KeyError(PLANTED)

    names = {"gate": "admit", "record_store": "records", "runs": "summaries", "ledger": "view"}
    node = watched.node
    owner = node._request_handler._gate if part == "gate" else getattr(node.parts, part)
    monkeypatch.setattr(owner, names[part], broken)
    frame = federation.run(study).request("bundle", "DK")
    watched.handle(frame)
    watched.daemon._wake.set()
    if part in ("runs", "ledger"):
        wait_until(lambda: "the upkeep met a fault" in lines.getvalue())
    search(everything(watched, lines, capfd))


def test_every_line_is_json_with_an_event(watched: Watched, lines: Lines) -> None:
    do_upkeep(watched)
    assert all("event" in json.loads(line) for line in lines.getvalue().splitlines())
    assert "connected" in lines.getvalue()
