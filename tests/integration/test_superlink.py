"""The contract with Flower: fleet client, relay, carrier and guard against the real SuperLink.

A new version of Flower could change any of this. The tests submit bundles of strangers as another
user of the same machine could: loopback is reachable without a login.
"""

import base64
import hashlib
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_public_key
from flwr.cli.build import build_fab_from_files
from flwr.proto.control_pb2 import StartRunRequest, StartRunResponse
from flwr.proto.fab_pb2 import Fab
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from client.app import build_app
from client.flower_client import FleetClient
from client.state.incarnation import Incarnation
from governance.runtime.local_rpc import LocalRpcServer
from keys.certificates import TransportAuthority, new_node_auth_key
from protocols.proto.exchange_pb2 import RelayRequest
from protocols.wire.channel import LinkFault
from protocols.wire.flower_frame import FLEET_CALLS, OBJECT_CALLS, SESSION_BYTES
from server.errors import CoordinatorFault
from server.exchange.fencing import session_key
from server.exchange.forwarding import Forwarding
from server.exchange.relay import Relay
from server.flower.bundle import build_bundle
from server.flower.bundle_guard import CONFIGURATION
from server.flower.presence import PresenceUpdate
from server.flower.superlink import NOWHERE, SuperLink
from server.home import HOME_VARIABLE, SETTINGS_FILE, CoordinatorHome
from tests.support.exchange_server import (
    LOOPBACK,
    LoopThread,
    OpenExchange,
    ServedFiles,
    caller,
    now,
)
from tests.support.stand_in_app import LARGE, write_launcher
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern"),
]
COUNTRIES = ("DE", "FR", "PL")
RUN = "0123456789abcdef" * 2
LATE_SECONDS = 3.0


class Enrolments:
    def enrol(self, *_: object) -> None:
        raise AssertionError("nobody enrols here")

    def revoked(self) -> frozenset[int]:
        return frozenset()


def answer_of(country: str) -> Callable[[bytes], bytes]:
    def handle(frame: bytes) -> bytes:
        if frame == f"late-{country}".encode():
            time.sleep(LATE_SECONDS)
        if frame == f"fault-{country}".encode():
            raise ValueError("not a frame of ours")
        return country.encode() + b" heard " + frame

    return handle


@dataclass
class Fleet:
    """A SuperLink with its executor, the exchange in front of it, and a node for each country."""

    folder: Path
    superlink: SuperLink
    forwarding: Forwarding
    exchange: OpenExchange
    keys: dict[str, tuple[bytes, str]]
    released: list[Mapping[str, Any]] = field(default_factory=list)
    rpc_server: LocalRpcServer | None = None

    @classmethod
    def start(cls, folder: Path) -> "Fleet":
        home = CoordinatorHome(folder)
        superlink = SuperLink(
            home.superlink,
            environment={HOME_VARIABLE: str(folder)},
            launcher=write_launcher(folder),
        )
        superlink.start()
        thread = LoopThread()
        (folder / SETTINGS_FILE).write_text(
            yaml.safe_dump({"federation": "danube", "listen": "h:1", "address": "h:1"})
        )
        forwarding = Forwarding()
        forwarding.open(superlink)
        relay = Relay(forwarding, long_poll=2.0)
        exchange = OpenExchange(
            TransportAuthority.create("danube", now()),
            relay,
            enrolments=Enrolments(),
            documents=ServedFiles(),
            thread=thread,
        )
        keys = {country: new_node_auth_key() for country in COUNTRIES}
        fleet = cls(folder, superlink, forwarding, exchange, keys)
        fleet._connect_all()
        fleet.rpc_server = LocalRpcServer(home.socket, fleet.answer)
        return fleet

    def _connect_all(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            lines = [self.keys[country][1] for country in COUNTRIES]
            ids = dict(zip(COUNTRIES, pool.map(self.superlink.register, lines), strict=True))
        for country, node_id in ids.items():
            key = load_ssh_public_key(self.keys[country][1].encode())
            self.exchange.open_session(country, node_id, public_key_to_bytes(key))

    def answer(self, method: str, params: Mapping[str, Any]) -> Any:
        if method == "news":
            relay = self.exchange.relay
            count = relay.changes.after(params["count"], params["wait"])
            return PresenceUpdate(count, relay.presence()).to_json()
        if method == "announce":
            return self.exchange.announce(params["countries"])
        assert method == "release"
        return self.released.append(params["outcome"])

    def node(
        self,
        country: str,
        ready: Callable[[], None] = lambda: None,
        former: Incarnation | None = None,
    ) -> FleetClient:
        link = self.exchange.link(caller(self.exchange.authority, country))
        key = load_pem_private_key(self.keys[country][0], None)
        app = build_app(answer_of(country))
        return FleetClient(link, key, app, _started(former), on_ready=ready)  # type: ignore[arg-type]

    def log(self, name: str) -> str:
        return (self.folder / "superlink" / f"{name}.log").read_text(errors="replace")

    def close(self) -> None:
        if self.rpc_server is not None:
            self.rpc_server.close()
        self.exchange.thread.run(self.forwarding.close())
        self.exchange.close()
        self.superlink.close()


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    # The folder of pytest may have too long a name for a socket.
    with tempfile.TemporaryDirectory() as folder:
        started = Fleet.start(Path(folder))
        yield started
        started.close()


@pytest.fixture(scope="module")
def nodes(fleet: Fleet) -> Iterator[None]:
    """All countries' nodes, connected and serving."""
    stop = threading.Event()
    ready = {country: threading.Event() for country in COUNTRIES}
    threads = [
        threading.Thread(target=_serve, args=(fleet.node(country, ready[country].set), stop))
        for country in COUNTRIES
    ]
    for thread in threads:
        thread.start()
    assert all(event.wait(20) for event in ready.values())
    yield
    stop.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def _started(former: Incarnation | None = None) -> Incarnation:
    """Return the start of a node, after a former one if there was one; each is another session."""
    session = os.urandom(SESSION_BYTES)
    if former is None:
        return Incarnation(1, session, b"")
    return Incarnation(former.number + 1, session, session_key(former.session))


def _serve(node: FleetClient, stop: threading.Event) -> None:
    with suppress(LinkFault):  # a poll is cancelled when the node is stopped
        node.serve(stop)


@pytest.fixture(scope="module")
def rehearsal(fleet: Fleet, nodes: None) -> Mapping[str, Any]:
    """The replies of the nodes to a run that was launched as the coordinator launches one."""
    bundle = build_bundle(fleet.folder / "bundles" / RUN, RUN, 1)
    flower_run = fleet.superlink.run(bundle)
    wait_until(lambda: fleet.released or _over(fleet, flower_run))
    assert fleet.released, fleet.log("superexec")[-3000:]
    return fleet.released[0]


def _over(fleet: Fleet, flower_run: int) -> bool:
    rows = [row for row in fleet.superlink.runs() if str(row["run-id"]) == str(flower_run)]
    return str(rows[0]["status"]).startswith("finished")


def expected_replies(frame: str, *countries: str) -> dict[str, str]:
    return {country: f"{country} heard {frame}" for country in countries or COUNTRIES}


def test_the_run_keeps_its_own_id_in_flower(rehearsal: Mapping[str, Any], fleet: Fleet) -> None:
    assert rehearsal["run"] == RUN
    assert rehearsal["home"] == str(fleet.folder)
    assert rehearsal["nodes"] == sorted(COUNTRIES)


def test_every_country_answers_its_own_frame(rehearsal: Mapping[str, Any]) -> None:
    assert rehearsal["hello"] == expected_replies("hello")
    assert rehearsal["again"] == expected_replies("again")
    assert rehearsal["own"] == expected_replies("own", "FR")


def test_a_reply_takes_less_time_than_one_poll_of_the_stock_client(
    rehearsal: Mapping[str, Any],
) -> None:
    assert rehearsal["seconds"] < 2.5  # the stock client polls every three seconds


def test_a_late_reply_counts_as_missing_and_never_as_the_next_one(
    rehearsal: Mapping[str, Any],
) -> None:
    assert rehearsal["late"] == expected_replies("late-FR", "DE", "PL")
    assert rehearsal["after late"] == expected_replies("after late")


def test_an_unknown_frame_does_not_end_a_node(rehearsal: Mapping[str, Any]) -> None:
    assert rehearsal["after odd"] == expected_replies("after odd")
    assert rehearsal["fault"] == expected_replies("fault-DE", "FR", "PL")
    assert rehearsal["after fault"] == expected_replies("after fault")


def test_a_large_frame_arrives_complete_in_both_directions(rehearsal: Mapping[str, Any]) -> None:
    expected = {
        country: hashlib.sha256(country.encode() + b" heard " + LARGE).hexdigest()
        for country in COUNTRIES
    }
    assert rehearsal["large"] == expected


@pytest.mark.usefixtures("rehearsal")
def test_the_run_list_of_flower_shows_the_run(fleet: Fleet) -> None:
    (row,) = [row for row in fleet.superlink.runs() if row["fab-id"] == "pratique/pratique-run"]
    assert wait_until(lambda: str(fleet.superlink.runs()[0]["status"]).startswith("finished"), 30)
    assert row["run-id"]


def processes(fleet: Fleet) -> list[int]:
    """The SuperLink, the executor, and whatever they started."""
    groups = {process.pid for process in fleet.superlink._processes}
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[2]) in groups and fields[0] != "Z":
                pids.append(int(entry.name))
    return pids


def listening(pids: list[int]) -> set[tuple[str, int]]:
    """Return every address on which one of these processes listens for TCP."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    addresses = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and columns[9] in inodes:
                raw, port = columns[1].split(":")
                words = [bytes.fromhex(raw[i : i + 8])[::-1] for i in range(0, len(raw), 8)]
                addresses.add((socket.inet_ntop(family, b"".join(words)), int(port, 16)))
    return addresses


def test_flower_listens_on_loopback_only(fleet: Fleet) -> None:
    assert listening(processes(fleet)) == {(LOOPBACK, fleet.superlink.port)}


def test_telemetry_and_update_checks_are_off_in_every_process(fleet: Fleet) -> None:
    pids = processes(fleet)
    assert len(pids) >= 2
    for pid in pids:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert b"FLWR_TELEMETRY_ENABLED=0" in variables
        assert b"FLWR_DISABLE_UPDATE_CHECK=1" in variables
        assert b"PYTHONSAFEPATH=1" in variables


def test_run_time_installation_is_off_and_authentication_is_on(fleet: Fleet) -> None:
    superlink = Path(f"/proc/{fleet.superlink._processes[0].pid}/cmdline").read_bytes()
    arguments = superlink.split(b"\0")
    assert b"--disable-runtime-dependency-installation" in arguments
    assert b"--enable-supernode-auth" in arguments
    assert b"--insecure" not in arguments
    assert b"--database" not in arguments
    assert arguments[arguments.index(b"--isolation") + 1] == b"process"


def test_no_secret_is_an_argument_or_a_variable_of_a_process(fleet: Fleet) -> None:
    folder = fleet.superlink._secrets
    secret = (folder / "superexec").read_bytes()
    key = (folder / "key.pem").read_text().splitlines()[1]
    for pid in processes(fleet):
        for source in ("environ", "cmdline"):
            content = Path(f"/proc/{pid}/{source}").read_bytes()
            for encoded in (secret, secret.hex().encode(), base64.b64encode(secret)):
                assert encoded not in content
            assert key.encode() not in content


def test_its_secret_files_are_readable_by_the_owner_only(fleet: Fleet) -> None:
    folder = fleet.superlink._secrets
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert not str(folder).startswith(str(fleet.folder))


def test_a_key_is_registered_once_only(fleet: Fleet) -> None:
    with pytest.raises(CoordinatorFault) as caught:
        fleet.superlink.register(fleet.keys["DE"][1])
    assert "flwr supernode" in caught.value.what
    assert caught.value.why
    assert caught.value.fix
    assert not list(fleet.superlink._secrets.glob("node-*"))


@pytest.mark.parametrize("line", ["", "junk", "ssh-ed25519 AAAAC3Nz junk"])
def test_a_malformed_key_gives_a_clear_error(fleet: Fleet, line: str) -> None:
    with pytest.raises(CoordinatorFault) as caught:
        fleet.superlink.register(line)
    assert caught.value.fix


def test_the_real_superlink_refuses_an_unregistered_key(fleet: Fleet) -> None:
    """Without the relay, a user of the machine has no registered key."""
    trusted = ssl.create_default_context(cafile=str(fleet.superlink.root_certificate))
    body = PullMessagesRequest(
        node=Node(node_id=fleet.exchange.relay.presence()["DE"].node)
    ).SerializeToString()
    address = f"https://{fleet.superlink.address}"
    with httpx.Client(base_url=address, verify=trusted, trust_env=False) as client:
        for call in (FLEET_CALLS | OBJECT_CALLS).values():
            headers = {"content-type": "application/protobuf"}
            answer = client.post(f"/v1/fleet/{call}", content=body, headers=headers)
            assert answer.status_code in {400, 401, 403}, call


@pytest.mark.usefixtures("nodes")
def test_the_node_of_one_country_cannot_pull_with_the_id_of_another(fleet: Fleet) -> None:
    link = fleet.exchange.link(caller(fleet.exchange.authority, "FR"))
    body = PullMessagesRequest(
        node=Node(node_id=fleet.exchange.relay.presence()["DE"].node)
    ).SerializeToString()
    with pytest.raises(LinkFault, match="another node's id"):
        link.relay(RelayRequest(method="PullMessages", body=body), 5)
    link.close()


def test_a_country_with_the_key_of_another_is_not_activated(fleet: Fleet) -> None:
    link = fleet.exchange.link(caller(fleet.exchange.authority, "FR"))
    key = load_pem_private_key(fleet.keys["DE"][0], None)
    stolen = FleetClient(link, key, build_app(answer_of("FR")), _started())  # type: ignore[arg-type]
    with pytest.raises(LinkFault, match="another node's key"):
        stolen.serve(threading.Event())
    link.close()


def test_a_killed_node_can_reconnect_at_once() -> None:
    """This node has its own session, so that no serving node is disturbed."""
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet.start(Path(folder))
        try:
            killed = _serve_until_the_connection_breaks(fleet)
            assert fleet.exchange.relay.online()["DE"]
            stop, ready = threading.Event(), threading.Event()
            node = fleet.node("DE", ready.set, killed)
            thread = threading.Thread(target=_serve, args=(node, stop))
            thread.start()
            assert ready.wait(5)
            stop.set()
            thread.join(20)
            assert not thread.is_alive()
            assert not fleet.exchange.relay.online()["DE"]
            _superlink_gone_is_said(fleet)
        finally:
            secrets, pids = fleet.superlink._secrets, processes(fleet)
            fleet.close()
        assert not secrets.exists()
        assert not [pid for pid in pids if Path(f"/proc/{pid}/stat").exists()]


def _serve_until_the_connection_breaks(fleet: Fleet) -> Incarnation:
    """Serve as a process that is killed: its connections end, and it sends no Deactivate."""
    first, ready = fleet.node("DE"), threading.Event()
    first._on_ready = ready.set
    thread = threading.Thread(target=_serve, args=(first, threading.Event()))
    thread.start()
    assert ready.wait(5)
    session = fleet.exchange.relay._sessions["DE"]
    signed_in = session.last_call
    wait_until(lambda: session.last_call > signed_in)  # a call is in progress
    first._transport._link.close()
    thread.join(20)
    return first._transport._incarnation


def _superlink_gone_is_said(fleet: Fleet) -> None:
    fleet.superlink._processes[0].kill()
    assert wait_until(fleet.superlink.failed_process, 10) == "superlink"
    with pytest.raises(LinkFault):
        fleet.node("DE").serve(threading.Event())
    with pytest.raises(CoordinatorFault) as refused:
        fleet.superlink.runs()
    assert refused.value.fix


# Bundles that strangers on the same machine can submit, and what happens to them.

CANARY = """
import os
if {variable!r} in os.environ:
    open({file!r}, "a").write("ran\\n")
from {kind} import {name} as App
app = App()
"""


@dataclass
class Stranger:
    """A stranger who can reach the SuperLink's port; its code leaves a trace if it runs."""

    fleet: Fleet
    folder: Path

    @property
    def trace(self) -> Path:
        return self.folder / "trace"

    def code(self, kind: str = "flwr.serverapp", name: str = "ServerApp") -> bytes:
        """Return a module that leaves a trace only inside the coordinator's processes."""
        values = {"variable": "FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "file": str(self.trace)}
        return CANARY.format(kind=kind, name=name, **values).encode()

    def submit(self, fab: bytes, **more: Any) -> int:
        """Start a run over the Control API, which asks for no login."""
        trusted = ssl.create_default_context(cafile=str(self.fleet.superlink.root_certificate))
        request = StartRunRequest(
            fab=Fab(hash_str=hashlib.sha256(fab).hexdigest(), content=fab), **more
        )
        headers = {"content-type": "application/protobuf", "accept": "application/protobuf"}
        address = f"https://{self.fleet.superlink.address}"
        with httpx.Client(base_url=address, verify=trusted, trust_env=False) as c:
            answer = c.post(
                "/v1/control/start-run", content=request.SerializeToString(), headers=headers
            )
        assert answer.status_code == 200, answer.text
        run_id = StartRunResponse.FromString(answer.content).run_id
        assert run_id
        return int(run_id)


@pytest.fixture
def stranger(fleet: Fleet, tmp_path: Path) -> Stranger:
    return Stranger(fleet, tmp_path)


def configuration(**components: str) -> str:
    named = "\n".join(f'{name} = "{where}"' for name, where in components.items())
    return (
        '[project]\nname = "stranger"\nversion = "1.0.0"\ndescription = "x"\n'
        'license = "Apache-2.0"\ndependencies = []\n'
        '[tool.flwr.app]\npublisher = "stranger"\n'
        f"[tool.flwr.app.components]\n{named}\n[tool.flwr.app.config]\nrun = '{RUN}'\n"
    )


OURS = {"serverapp": "server.app:app", "clientapp": "client.app:app"}


def _ended(fleet: Fleet, flower_run: int) -> tuple[str, str]:
    """Wait for the end of a run; return its status and Flower's details of it."""

    def over() -> dict[str, Any]:
        rows = {str(row["run-id"]): row for row in fleet.superlink.runs()}
        flower_row = rows[str(flower_run)]
        return flower_row if str(flower_row["status"]).startswith("finished") else {}

    ended = wait_until(over, 90)
    return str(ended["status"]), str(ended["status-details"])


def assert_refused(stranger: Stranger, flower_run: int, why: str) -> None:
    status, details = _ended(stranger.fleet, flower_run)
    assert status == "finished:failed"
    assert "The bundle of this run was refused" in details
    assert why in details
    assert not stranger.trace.exists()
    assert not list((stranger.fleet.folder / "superlink" / "flwr").glob("apps/stranger*"))


def test_the_trace_appears_if_code_of_a_bundle_runs(stranger: Stranger) -> None:
    """Otherwise the next tests would pass for a wrong reason."""
    environment = {**os.environ, "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1"}
    module = stranger.folder / "hostile.py"
    module.write_bytes(stranger.code())
    subprocess.run([sys.executable, str(module)], env=environment, check=True, cwd="/")
    assert stranger.trace.read_text() == "ran\n"


def test_a_bundle_that_shadows_the_installed_app_is_refused(stranger: Stranger) -> None:
    files = {
        CONFIGURATION: configuration(**OURS).encode(),
        "server/__init__.py": stranger.code(),
        "server/app.py": stranger.code(),
        "client/__init__.py": stranger.code("flwr.clientapp", "ClientApp"),
        "client/app.py": stranger.code("flwr.clientapp", "ClientApp"),
    }
    flower_run = stranger.submit(build_fab_from_files(files)[0])
    assert_refused(stranger, flower_run, "It contains the file 'client/__init__.py'")


def test_a_bundle_with_its_own_code_is_refused(stranger: Stranger) -> None:
    files = {
        CONFIGURATION: configuration(serverapp="evil:app", clientapp="evil:app").encode(),
        "evil.py": stranger.code(),
    }
    flower_run = stranger.submit(build_fab_from_files(files)[0])
    assert_refused(stranger, flower_run, "It contains the file 'evil.py'")


def test_a_configuration_that_names_another_module_is_refused(stranger: Stranger) -> None:
    files = {CONFIGURATION: configuration(serverapp="antigravity:app", clientapp="x:app").encode()}
    fab = build_fab_from_files(files)[0]
    assert_refused(stranger, stranger.submit(fab), "It names other apps than the installed ones")


def test_a_hostile_bundle_submitted_by_the_command_line_is_refused(stranger: Stranger) -> None:
    folder = stranger.folder / "stranger"
    for name in ("server", "client"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_bytes(b"")
    (folder / "server" / "app.py").write_bytes(stranger.code())
    (folder / "client" / "app.py").write_bytes(stranger.code("flwr.clientapp", "ClientApp"))
    (folder / CONFIGURATION).write_text(configuration(**OURS))
    tool = Path(sys.executable).parent / "flwr"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(stranger.folder),
        "FLWR_HOME": str(stranger.fleet.folder / "superlink" / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    command = [str(tool), "run", str(folder), "local", "--format", "json"]
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    flower_run = int(json.loads(done.stdout)["run-id"])
    assert_refused(stranger, flower_run, "It contains the file 'client/__init__.py'")


def test_a_bundle_of_another_kind_of_app_is_not_started(stranger: Stranger) -> None:
    """Flower starts an agent app by another command, which the bundle guard does not see."""
    files = {
        CONFIGURATION: configuration(agentapp="evil:app").encode(),
        "evil.py": stranger.code(),
    }
    stranger.submit(build_fab_from_files(files)[0], user_prompt="hello")
    wait_until(lambda: "Refused: flwr-agentapp" in stranger.fleet.log("superexec"))
    assert not stranger.trace.exists()


def test_no_process_of_flower_finds_a_program_by_its_name(fleet: Fleet) -> None:
    for pid in processes(fleet):
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert b"PATH=" + NOWHERE.encode() in variables


def test_the_token_is_an_argument_inside_the_process_only(rehearsal: Mapping[str, Any]) -> None:
    """Every user of the machine can read a process's command line."""
    assert "--token" in rehearsal["argv"]
    assert "--token" not in rehearsal["command line"]
