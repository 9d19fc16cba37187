"""Real daemons with a run under way: what listens, and what each caller may do there.

The permissions of roles are tested in `test_exchange.py`. Here the port is the daemon's own, with
its own register of certificates, its own authority and its own SuperLink behind it.
"""

import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.routers.runtime import responses_router, router

from governance.runtime.local_rpc import ask
from keys.certificates import Role as Holder
from keys.certificates import TransportAuthority
from keys.store import KeyStore
from protocols.proto import exchange_pb2, exchange_pb2_grpc
from protocols.proto.exchange_pb2 import RelayRequest, SubmitRequest
from protocols.wire.channel import sent_as
from protocols.wire.flower_frame import FLEET_CALLS, OBJECT_CALLS
from server.exchange.service import MAY_CALL
from server.home import SETTINGS_FILE, CoordinatorHome, CoordinatorKeys
from tests.support.exchange_server import LOOPBACK, Caller, caller
from tests.support.process_federation import (
    ProcessFederation,
    Role,
    _descendants,
    _socket,
)
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ACCEPTS_CONNECTIONS = 0x10000
"""The flag of a listening socket in /proc/net/unix (`__SO_ACCEPTCON`)."""
EVERYWHERE = "0.0.0.0"  # noqa: S104 (as an exchange listens in production)
ROUNDS = 400
"""More rounds than the tests need: a server app runs as long as the rounds last."""
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LISTENING = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}
RUNTIME = (router, responses_router)
PROTOBUF = {"content-type": "application/protobuf", "accept": "application/protobuf"}


@pytest.fixture(scope="module")
def federation() -> Iterator[ProcessFederation]:
    """Start all daemons, a run, and an exchange that listens beyond loopback."""
    folder = Path(tempfile.mkdtemp(prefix="p", dir="/tmp"))
    federation = ProcessFederation.started(folder)
    try:
        federation.kill(Role.COORDINATOR)
        path = federation.coordinator.home / SETTINGS_FILE
        settings = yaml.safe_load(path.read_text())
        settings["listen"] = settings["listen"].replace(LOOPBACK, EVERYWHERE)
        path.write_text(yaml.safe_dump(settings))
        federation.start_coordinator()
        federation.propose_and_permit("ports", rounds=ROUNDS)
        wait_until(lambda: all(ask(_socket(federation.coordinator), "status")["nodes"].values()))
        federation.launch("ports")
        federation.wait_until("ports", lambda status: status["round"] >= 1)
        yield federation
    finally:
        federation.end()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def port(federation: ProcessFederation) -> int:
    settings = yaml.safe_load((federation.coordinator.home / SETTINGS_FILE).read_text())
    return int(settings["listen"].rsplit(":", 1)[1])


# Which sockets listen.


def sockets(pids: list[int]) -> set[str]:
    """Return the inodes of the sockets that these processes have open."""
    addresses = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(descriptor.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                addresses.add(target[8:-1])
    return addresses


def listening(pids: list[int]) -> set[tuple[str, str, int]]:
    """Return protocol, address and port of everything on which these processes listen."""
    inodes, addresses = sockets(pids), set()
    for table, state in LISTENING.items():
        family = socket.AF_INET6 if table.endswith("6") else socket.AF_INET
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == state and columns[9] in inodes:
                raw, number = columns[1].split(":")
                words = [bytes.fromhex(raw[i : i + 8])[::-1] for i in range(0, len(raw), 8)]
                address = socket.inet_ntop(family, b"".join(words))
                addresses.add((table, address, int(number, 16)))
    return addresses


def tree(federation: ProcessFederation, role: Role, country: str = "") -> list[int]:
    (daemon,) = federation.pids(role, country)
    return [daemon, *_descendants(daemon)]


def test_the_list_contains_an_open_socket() -> None:
    """Otherwise the next tests would pass for a wrong reason."""
    with socket.create_server((LOOPBACK, 0)) as one, socket.socket(type=socket.SOCK_DGRAM) as two:
        two.bind((EVERYWHERE, 0))
        assert {
            ("tcp", LOOPBACK, one.getsockname()[1]),
            ("udp", EVERYWHERE, two.getsockname()[1]),
        } <= listening([os.getpid()])


def test_all_processes_of_flower_are_listed(federation: ProcessFederation) -> None:
    pids = set(tree(federation, Role.COORDINATOR))
    for role in (Role.SUPERLINK, Role.SUPEREXEC, Role.SERVER_APP):
        assert set(federation.pids(role)) <= pids
        assert federation.pids(role), role


def test_only_the_exchange_listens_beyond_loopback(
    federation: ProcessFederation, port: int
) -> None:
    """0.0.0.0 means every address of both families."""
    superlink = ask(_socket(federation.coordinator), "status")["superlink"]
    addresses = listening(tree(federation, Role.COORDINATOR))
    inside = {address for address in addresses if address[1] in (LOOPBACK, "::1")}
    assert inside == {("tcp", LOOPBACK, int(superlink.rsplit(":", 1)[1]))}
    assert {(table.rstrip("6"), number) for table, _, number in addresses - inside} == {
        ("tcp", port)
    }


def test_no_node_listens_on_any_network(federation: ProcessFederation) -> None:
    for country in federation.countries:
        assert not listening(tree(federation, Role.NODE, country))


def test_local_sockets_are_files_that_only_their_owner_can_open(
    federation: ProcessFederation,
) -> None:
    """A listening socket in the abstract namespace would have no owner."""
    daemons = [(federation.coordinator, tree(federation, Role.COORDINATOR))]
    daemons += [(federation.node(c), tree(federation, Role.NODE, c)) for c in federation.countries]
    for party, pids in daemons:
        held_sockets, names = sockets(pids), set()
        for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
            columns = line.split()
            listens = int(columns[3], 16) & ACCEPTS_CONNECTIONS
            if columns[6] in held_sockets and len(columns) > 7 and listens:
                names.add(columns[7])
        expected = {_socket(party)}
        if party is federation.coordinator:
            expected |= {CoordinatorHome(party.home).exchange_socket}
        assert names == set(map(str, expected))
        assert {stat.S_IMODE(path.stat().st_mode) for path in expected} == {0o600}
        assert stat.S_IMODE(_socket(party).parent.stat().st_mode) & 0o077 == 0


# Which callers the exchange accepts.


@pytest.fixture(scope="module")
def authority(federation: ProcessFederation) -> TransportAuthority:
    """Return the federation's own authority, which only its coordinator holds."""
    home = CoordinatorHome(federation.coordinator.home)
    passphrase = federation.coordinator.passphrase.read_bytes()
    keys = CoordinatorKeys.load(home, KeyStore.open(home.keys, passphrase))
    return keys.transport.in_force(datetime.now(UTC))


def held_by(party: Any, key: str, certificate: Path) -> Caller:
    """Return the key and certificate that a party presents."""
    store = KeyStore.open(party.home / "keys", party.passphrase.read_bytes().strip())
    return Caller(store.get(key), certificate.read_bytes())


@pytest.fixture(scope="module")
def node(federation: ProcessFederation) -> Caller:
    home = federation.node(federation.countries[0]).home
    return held_by(federation.node(federation.countries[0]), "transport", home / "certificate.pem")


def call(
    port: int, authority: TransportAuthority, who: Caller | None, name: str, request: Any
) -> tuple[grpc.StatusCode, str]:
    """Make one call; return its status code and message."""
    pair = (who.key, who.certificate) if who else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.certificate_pem, *pair)
    with grpc.secure_channel(f"{LOOPBACK}:{port}", credentials) as channel:
        try:
            make = getattr(exchange_pb2_grpc.ExchangeStub(channel), name)
            make(sent_as(name, request), timeout=10)
        except grpc.RpcError as error:
            return error.code(), str(error.details())
    return grpc.StatusCode.OK, ""


def fleet_requests(node_id: int, key: bytes = b"") -> dict[str, RelayRequest]:
    """Return each Fleet call as it would be made for a node."""
    flower_node = Node(node_id=node_id)
    bodies = {
        name: PullMessagesRequest(node=flower_node).SerializeToString() for name in FLEET_CALLS
    }
    bodies["ActivateNode"] = ActivateNodeRequest(public_key=key).SerializeToString()
    bodies["SendNodeHeartbeat"] = SendNodeHeartbeatRequest(node=flower_node).SerializeToString()
    return {name: RelayRequest(method=name, body=body) for name, body in bodies.items()}


def requests(node_id: int) -> list[tuple[str, Any]]:
    """Return every call of the exchange, and every Fleet call through its relay."""
    plain: list[tuple[str, Any]] = [
        ("Enrol", exchange_pb2.EnrolRequest()),
        ("Renew", exchange_pb2.RenewRequest()),
        ("Fetch", exchange_pb2.FetchRequest(path="metadata/1.root.json")),
        ("Submit", SubmitRequest(kind=SubmitRequest.COUNTRY_BUNDLE, content=b"bundle")),
    ]
    assert {name for name, _ in plain} | {"Relay"} == set(MAY_CALL)
    return [*plain, *(("Relay", request) for request in fleet_requests(node_id).values())]


@pytest.fixture(scope="module")
def node_id(federation: ProcessFederation) -> int:
    """Return the node id of the first country's node."""
    present = ask(_socket(federation.coordinator), "news", count=-1, wait=0)["present"]
    return int(present[federation.countries[0]]["node"])


STRANGERS: dict[str, Callable[[TransportAuthority], Caller | None]] = {
    "nobody": lambda _: None,
    "another authority's": lambda _: caller(
        TransportAuthority.create("northwest", datetime.now(UTC)), "DK"
    ),
    "expired": lambda own: caller(own, "DK", at=datetime.now(UTC) - DAY, lifetime=HOUR),
    "the server's": lambda own: caller(own, "ZZ", Holder.COORDINATOR, hosts=("localhost",)),
}


@pytest.mark.parametrize("who", STRANGERS)
def test_a_call_without_a_valid_certificate_is_refused(
    port: int, authority: TransportAuthority, node_id: int, who: str
) -> None:
    for name, request in requests(node_id):
        code, _ = call(port, authority, STRANGERS[who](authority), name, request)
        assert code is grpc.StatusCode.UNAVAILABLE, (name, request)


def test_the_certificate_of_a_node_gives_access_to_its_session_only(
    federation: ProcessFederation, port: int, authority: TransportAuthority, node_id: int
) -> None:
    other = caller(authority, federation.countries[1])
    for name, request in fleet_requests(node_id).items():
        code, message = call(port, authority, other, "Relay", request)
        assert code is grpc.StatusCode.PERMISSION_DENIED, name
        assert "another node's" in message


@pytest.mark.parametrize("role", [Holder.OFFICER, Holder.ENROLMENT])
def test_only_nodes_may_make_fleet_calls(
    port: int, authority: TransportAuthority, node_id: int, role: Holder
) -> None:
    for name, request in fleet_requests(node_id).items():
        code, message = call(port, authority, caller(authority, "DK", role), "Relay", request)
        assert (code, role.value in message) == (grpc.StatusCode.PERMISSION_DENIED, True), name


OUTSIDE = [
    "GetRun", "GetFab", "RegisterNode", "UnregisterNode", *OBJECT_CALLS,
    "StartRun", "ListRuns", "StreamLogs", "PullTaskInput", "",
    "pull-messages", "PullMessages ", "pullmessages", "PullMessages\n", "PullMessages/../GetRun",
    "../control/start-run", "/v1/control/start-run", "..%2fcontrol%2fstart-run", "?x=", "#",
    "http://127.0.0.1/", "é" * 300,
]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_calls_that_the_relay_does_not_list_are_refused(
    port: int, authority: TransportAuthority, node: Caller, node_id: int, name: str
) -> None:
    body = PullMessagesRequest(node=Node(node_id=node_id)).SerializeToString()
    code, message = call(port, authority, node, "Relay", RelayRequest(method=name, body=body))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "is not forwarded" in message


def test_a_header_cannot_smuggle_another_request(
    port: int, authority: TransportAuthority, node: Caller, node_id: int
) -> None:
    body = SendNodeHeartbeatRequest(node=Node(node_id=node_id)).SerializeToString()
    for name, value, expected in (
        ("flwr-signature", "b\r\nhost: elsewhere", grpc.StatusCode.PERMISSION_DENIED),
        ("flwr-signature", "é", grpc.StatusCode.PERMISSION_DENIED),
        ("flwr-a\r\nx", "b", grpc.StatusCode.OK),  # not Flower's, so it is not forwarded
    ):
        request = RelayRequest(method="SendNodeHeartbeat", body=body, headers={name: value})
        code, _ = call(port, authority, node, "Relay", request)
        assert code is expected


def test_the_certificate_of_a_node_is_accepted(
    port: int, authority: TransportAuthority, node: Caller, node_id: int
) -> None:
    """Otherwise everything above might be refused for another reason."""
    request = exchange_pb2.FetchRequest(path="metadata/1.root.json")
    assert call(port, authority, node, "Fetch", request)[0] is grpc.StatusCode.OK
    beat = fleet_requests(node_id)["SendNodeHeartbeat"]
    # The call itself succeeds; the answer of the SuperLink in it is a 401.
    assert call(port, authority, node, "Relay", beat)[0] is grpc.StatusCode.OK


# What every user of the coordinator's machine can reach: the SuperLink's port on loopback.


@pytest.fixture(scope="module")
def local(federation: ProcessFederation) -> Iterator[httpx.Client]:
    """A process of another user: it can reach the port, and accepts any certificate."""
    address = ask(_socket(federation.coordinator), "status")["superlink"]
    with httpx.Client(base_url=f"https://{address}", verify=False) as client:  # noqa: S501
        yield client


def runtime_calls() -> list[str]:
    return sorted(route.path for router in RUNTIME for route in router.routes)


def test_the_test_finds_the_calls_of_the_runtime() -> None:
    known = {"/v1/runtime/pull-messages", "/v1/runtime/pull-object", "/v1/runtime/acquire-task"}
    assert known <= set(runtime_calls())


@pytest.mark.parametrize("path", runtime_calls())
@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer x", "flwr-task-token": "x"}])
def test_a_message_of_a_run_needs_the_secret_of_the_executor(
    local: httpx.Client, path: str, headers: dict[str, str]
) -> None:
    answer = local.post(path, content=b"", headers=PROTOBUF | headers)
    assert answer.status_code in {401, 403}


@pytest.mark.parametrize("call_name", sorted({**FLEET_CALLS, **OBJECT_CALLS}.values()))
def test_a_node_session_needs_a_registered_node_key(
    local: httpx.Client, node_id: int, call_name: str
) -> None:
    body = PullMessagesRequest(node=Node(node_id=node_id)).SerializeToString()
    answer = local.post(f"/v1/fleet/{call_name}", content=body, headers=PROTOBUF)
    assert answer.status_code in {400, 401, 403}


def test_the_secrets_and_the_token_of_the_server_app_are_not_readable_by_others(
    federation: ProcessFederation,
) -> None:
    (superlink,) = federation.pids(Role.SUPERLINK)
    words = Path(f"/proc/{superlink}/cmdline").read_bytes().decode().split("\0")
    folder = Path(words[words.index("--superexec-auth-secret-file") + 1]).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


# This is the last test, because it ends the participation of a country.


def test_a_revoked_certificate_is_refused_from_the_next_call_on(
    federation: ProcessFederation,
    port: int,
    authority: TransportAuthority,
    node: Caller,
    node_id: int,
) -> None:
    federation.coordinator.run("revoke", federation.countries[0], "--role", "node")
    for name, request in requests(node_id):
        code, message = call(port, authority, node, name, request)
        assert code is grpc.StatusCode.UNAUTHENTICATED, name
        assert "revoked" in message
