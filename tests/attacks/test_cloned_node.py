"""A node's folder runs on a second machine: the copy ends nobody, and both machines are warned."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_public_key
from flwr.proto.fleet_pb2 import ActivateNodeResponse
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from client import flower_client
from client.app import build_app
from client.daemon import Daemon
from client.flower_client import FleetClient
from client.state.incarnation import begin
from governance.audit.events import EventKind
from keys.certificates import TransportAuthority, new_node_auth_key
from protocols.wire.channel import LinkFault
from server.exchange import fencing
from server.exchange.fencing import Fence
from server.exchange.relay import Relay
from tests.support.documents import training_fields
from tests.support.exchange_server import (
    Caller,
    OpenExchange,
    ScriptedSuperLink,
    ServedFiles,
    caller,
    now,
)
from tests.support.ledger_and_log import node_state
from tests.support.live_federation import LiveParts
from tests.support.node_federation import log_lines
from tests.support.waiting import WAIT_SECONDS, wait_until

NODE_ID = 101
KEY, PUBLIC = new_node_auth_key()
QUICK = {"LIVE_SECONDS": 0.4, "PROOF_SECONDS": 0.2, "KEPT_FREE_SECONDS": 1.0}
"""The fence's times, at a twentieth of their length; a heartbeat takes 0.1 s."""
BEAT = 0.1


class Link(ScriptedSuperLink):
    """A SuperLink that admits the node and knows its heartbeats."""

    async def forward(self, method: str, *rest: Any) -> tuple[int, bytes]:
        await super().forward(method, *rest)
        answers: dict[str, Any] = {
            "ActivateNode": ActivateNodeResponse(node_id=NODE_ID),
            "SendNodeHeartbeat": SendNodeHeartbeatResponse(success=True),
        }
        return 200, answers[method].SerializeToString() if method in answers else b""


@dataclass
class Machine:
    """A machine that runs a node's folder: one process at a time, which reconnects by itself."""

    folder: Path
    exchange: OpenExchange
    who: Caller
    standings: list[bool] = field(default_factory=list)
    faults: list[LinkFault] = field(default_factory=list)
    connected: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Start a process: its state counts the start."""
        self.stop = threading.Event()
        self.link = self.exchange.link(self.who)
        incarnation = begin(node_state(self.folder))
        client = FleetClient(
            self.link,
            load_pem_private_key(KEY, None),  # type: ignore[arg-type]
            build_app(lambda frame: frame),
            incarnation,
            on_ready=self.connected.set,
            on_standing=self.standings.append,
        )
        self.thread = threading.Thread(target=self._run, args=(client,))
        self.thread.start()

    def _run(self, client: FleetClient) -> None:
        while not self.stop.is_set():
            try:
                client.serve(self.stop)
            except LinkFault as fault:
                self.connected.clear()
                self.faults.append(fault)
                self.stop.wait(BEAT)

    def kill(self) -> None:
        """End the process as SIGKILL does: its connections break, and it says nothing."""
        self.stop.set()
        self.link.close()
        self.thread.join(WAIT_SECONDS)

    @property
    def warned(self) -> bool:
        """Whether the exchange has said that another machine has this identity."""
        return any(self.standings)


@dataclass
class Country:
    """A coordinator's exchange, and the machines that run AT's folder."""

    folder: Path
    exchange: OpenExchange
    who: Caller
    superlink: Link
    disputes: list[str]
    machines: list[Machine] = field(default_factory=list)

    def machine(self, copy_of: Machine | None = None) -> Machine:
        """Return a machine with an empty folder, or with a copy of another's."""
        folder = self.folder / f"machine-{len(self.machines)}"
        if copy_of is None:
            folder.mkdir()
        else:
            # SQLite makes this file again; it may go while it is being copied
            shutil.copytree(copy_of.folder, folder, ignore=shutil.ignore_patterns("*-shm"))
        self.machines.append(Machine(folder, self.exchange, self.who))
        return self.machines[-1]

    @property
    def online(self) -> bool:
        return self.exchange.relay.online()["AT"]


@pytest.fixture
def country(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Country]:
    for name, seconds in QUICK.items():
        monkeypatch.setattr(fencing, name, seconds)
    monkeypatch.setattr(flower_client, "HEARTBEAT_SECONDS", BEAT)
    disputes: list[str] = []
    superlink = Link()
    relay = Relay(
        superlink.forward, fence=Fence(on_dispute=disputes.append), long_poll=0.2, heartbeat=BEAT
    )
    authority = TransportAuthority.create("danube", now())
    with OpenExchange(authority, relay, enrolments=None, documents=ServedFiles()) as exchange:
        key = load_ssh_public_key(PUBLIC.encode())
        exchange.open_session("AT", NODE_ID, public_key_to_bytes(key))
        opened = Country(tmp_path, exchange, caller(authority, "AT"), superlink, disputes)
        yield opened
        for machine in opened.machines:
            machine.kill()


def test_a_copy_beside_the_node_ends_nobody_and_both_are_warned(country: Country) -> None:
    original = country.machine()
    original.start()
    assert original.connected.wait(WAIT_SECONDS)
    copy = country.machine(original)
    copy.start()
    wait_until(lambda: copy.warned and original.warned)
    assert "Another machine is connected" in copy.faults[-1].what
    assert not copy.connected.is_set()
    assert original.connected.is_set()
    assert not original.faults
    assert country.online
    copy.kill()
    assert country.online
    assert original.connected.is_set()
    assert country.disputes == ["AT"]


def test_a_copy_that_took_an_unreachable_nodes_place_loses_it_when_the_node_returns(
    country: Country,
) -> None:
    original = country.machine()
    original.start()
    assert original.connected.wait(WAIT_SECONDS)
    copy, original_link = country.machine(original), original.link
    with suppress(LinkFault):
        original.connected.clear()
        original_link.close()  # its network is gone, but its process is not
    copy.start()
    assert copy.connected.wait(WAIT_SECONDS)
    fresh = country.exchange.link(country.who)
    original.link.__dict__.update(fresh.__dict__)  # the network is back
    assert original.connected.wait(WAIT_SECONDS)
    wait_until(lambda: copy.warned and not copy.connected.is_set())
    assert original.connected.is_set()
    assert original.warned
    assert country.disputes == ["AT"]


def test_a_killed_node_that_starts_again_takes_over_at_once_and_nobody_is_warned(
    country: Country, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fencing, "LIVE_SECONDS", 60.0)  # only the broken connection shows it
    node = country.machine()
    node.start()
    assert node.connected.wait(WAIT_SECONDS)
    wait_until(lambda: {"SendNodeHeartbeat", "PullMessages"} <= set(country.superlink.methods))
    node.kill()
    node.connected.clear()
    node.start()
    assert node.connected.wait(WAIT_SECONDS)
    assert not node.warned
    assert not country.disputes


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:GitWildMatchPattern")
def test_a_cloned_folder_in_a_whole_federation() -> None:
    """Real daemons, a real SuperLink, real times; a study goes on while a copy tries to sign in."""
    live = LiveParts.start()
    try:
        live.settle_all()
        daemons = live.daemons["DK"], live.run_copy("DK")
        online = live.coordinator.context.sessions.online
        wait_until(lambda: all(_disputed(daemon) for daemon in daemons), 60)
        assert online()["DK"]
        connected, copy = (daemon._status() for daemon in daemons)
        assert connected["connected"]
        assert not copy["connected"]
        assert "Another machine is connected" in copy["waiting_for"]
        study = live.federation.allowed("beside-a-copy", **training_fields(1))
        live.launch(study)
        assert wait_until(lambda: live.over(study), 120)["state"] == "finished"
        daemons[1].stop()
        live._threads["copy of DK"].join(WAIT_SECONDS)
        assert online()["DK"]
        assert daemons[0]._status()["connected"]
        assert live.coordinator.ask("status")["copies"] == ["DK"]
        for daemon in daemons:
            lines = log_lines(daemon._node)
            assert sum(f'"{EventKind.SESSION_DISPUTED}"' in line for line in lines) == 1
    finally:
        live.close()


def _disputed(daemon: Daemon) -> bool:
    return bool(daemon._status()["disputed"])
