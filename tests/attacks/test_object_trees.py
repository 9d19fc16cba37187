"""A node sends more than a message is: object trees, other fields, sizes, second answers."""

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_public_key
from flwr.app import ConfigRecord
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    Message,
    Metadata,
    ObjectTree,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.recorddict_pb2 import RecordDict
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from client.app import build_app
from client.flower_client import FleetClient
from client.state.incarnation import Incarnation
from keys.certificates import TransportAuthority, new_node_auth_key
from protocols.proto.exchange_pb2 import RelayRequest
from protocols.wire.channel import ExchangeLink, LinkFault
from protocols.wire.flower_frame import (
    LARGEST_BODY,
    NONCE_BYTES,
    SESSION_BYTES,
    SESSION_ENDED,
    SIGNED_IN_TOO_OFTEN,
)
from protocols.wire.flower_object import object_name, pack_frame
from server.exchange.fleet_requests import ONLINE_SECONDS, RelayRefused
from server.exchange.forwarding import Forwarding
from server.exchange.relay import Relay
from server.exchange.relay_session import MOST_UNANSWERED, SIGN_INS_AT_ONCE
from server.flower.superlink import SuperLink
from tests.support.exchange_server import (
    LOOPBACK,
    Caller,
    LoopThread,
    OpenExchange,
    ServedFiles,
    caller,
    now,
)
from tests.support.flood import flood, goes_on, latency
from tests.support.relay_harness import AT, CONTENT, KEYS, NAME, REQUESTS, RelayHarness, push_of

MANY = 700_000
"""As many objects as a message of 60 MB can name."""


@pytest.fixture
def wire() -> RelayHarness:
    """A relay from which AT got a message that it may answer."""
    made = RelayHarness()
    made.ask(run_id=7)
    return made


def names(count: int) -> list[ObjectTree]:
    return [ObjectTree(object_id=f"{number:064x}") for number in range(count)]


def deep(levels: int) -> ObjectTree:
    tree = ObjectTree(object_id=NAME)
    for _ in range(levels):
        tree = ObjectTree(object_id=NAME, children=[tree])
    return tree


def with_trees(*trees: ObjectTree) -> PushMessagesRequest:
    push = push_of(CONTENT)
    del push.message_object_trees[:]
    push.message_object_trees.extend(trees)
    return push


TREES: dict[str, Callable[[], PushMessagesRequest]] = {
    "700,000 children": lambda: with_trees(ObjectTree(object_id=NAME, children=names(MANY))),
    "700,000 trees": lambda: with_trees(*names(MANY)),
    "one child": lambda: with_trees(ObjectTree(object_id=NAME, children=names(1))),
    "a second tree": lambda: with_trees(ObjectTree(object_id=NAME), *names(1)),
    "the same tree twice": lambda: with_trees(*[ObjectTree(object_id=NAME)] * 2),
    "a tree within a tree": lambda: with_trees(deep(1)),
    "thirty levels": lambda: with_trees(deep(30)),
    "no tree": with_trees,
    "another name": lambda: with_trees(*names(1)),
    "a name that is no hash": lambda: with_trees(ObjectTree(object_id="m")),
}


@pytest.mark.parametrize("tree", sorted(TREES))
def test_a_reply_names_its_one_object_and_no_other(wire: RelayHarness, tree: str) -> None:
    with pytest.raises(RelayRefused):
        wire.call("AT", "PushMessages", TREES[tree]())
    assert not wire.superlink.calls


OBJECTS = {
    "none": b"",
    "no object of Flower": b"x" * 100,
    "a record with many items": ConfigRecord({f"a{n}": n for n in range(1_000)}).deflate(),
    "a record without a nonce": ConfigRecord({"frame": b"x"}).deflate(),
    "a record with children": CONTENT.replace(b"  ", b" " + b"0" * 64 + b" ", 1),
    "a message of Flower": b"Message  0\0",
    "bytes after the record": CONTENT + b"\0",
    "another length": CONTENT.replace(b"ConfigRecord  49", b"ConfigRecord  48"),
}


@pytest.mark.parametrize("kind", sorted(OBJECTS))
def test_the_object_of_a_reply_is_one_frame(wire: RelayHarness, kind: str) -> None:
    with pytest.raises(RelayRefused, match="not one frame"):
        wire.call("AT", "PushMessages", push_of(OBJECTS[kind]), object=OBJECTS[kind])
    assert not wire.superlink.calls


def test_a_reply_is_not_larger_than_its_study_allows(wire: RelayHarness) -> None:
    wire.ask("small", largest=100)
    largest, larger = (pack_frame(bytes(size), bytes(NONCE_BYTES)) for size in (100, 101))
    with pytest.raises(RelayRefused, match="larger reply than its study"):
        wire.push(larger, "small")
    assert wire.push(largest, "small").status == 200


def filled() -> dict[str, Any]:
    """Return each request with every field that the protocol of Flower has, and more."""
    node, metadata = Node(node_id=AT), push_of(CONTENT).messages_list[0].metadata
    lies = Metadata(
        run_id=666, ttl=1e9, created_at=1e9, group_id="g" * 99, message_type="train",
        dst_node_id=77, src_task_id=5, dst_task_id=6,
    )  # fmt: skip
    lies.MergeFrom(metadata)
    message = Message(metadata=lies, content=RecordDict(items=[RecordDict.Item(key="k")]))
    message.error.code = 3
    push = with_trees(ObjectTree(object_id=NAME))
    del push.messages_list[:]
    push.messages_list.append(message)
    push.clientapp_runtime_list.extend([1e300, float("nan")])
    return {
        "ActivateNode": ActivateNodeRequest(public_key=KEYS["AT"], heartbeat_interval=1e9),
        "DeactivateNode": DeactivateNodeRequest(node_id=AT),
        "SendNodeHeartbeat": SendNodeHeartbeatRequest(node=node, heartbeat_interval=1e9),
        "PullMessages": PullMessagesRequest(node=node, message_ids=["m"] * 100),
        "PushMessages": push,
    }


UNKNOWN_FIELD = b"\xfa\x3f\x04evil"
"""Field 1023 of any message."""


@pytest.mark.parametrize("method", sorted(REQUESTS))
def test_the_superlink_gets_only_what_the_relay_wrote(wire: RelayHarness, method: str) -> None:
    body = filled()[method].SerializeToString() + UNKNOWN_FIELD
    assert wire.call("AT", method, body).status == 200
    (_, forwarded, _) = next(call for call in wire.superlink.calls if call[0] == method)
    assert b"evil" not in forwarded
    if method != "PushMessages":
        honest = RelayHarness()
        honest.call("AT", method, REQUESTS[method](AT))
        assert forwarded == honest.superlink.calls[0][1]
        assert b"m" * 2 not in forwarded
        return
    push = PushMessagesRequest.FromString(forwarded)
    (message,) = push.messages_list
    (tree,) = push.message_object_trees
    assert (tree.object_id, len(tree.children)) == (NAME, 0)
    assert message.content == RecordDict()
    assert not message.HasField("error")
    assert list(push.clientapp_runtime_list) == [0.0]
    said = message.metadata
    assert (said.run_id, said.message_id, said.src_node_id, said.dst_node_id) == (7, NAME, AT, 1)
    assert (said.group_id, said.message_type, said.src_task_id) == ("", "query", 0)
    assert 0 < said.ttl <= 60.0


def test_a_heartbeat_cannot_keep_a_node_online_for_longer(wire: RelayHarness) -> None:
    for method in ("ActivateNode", "SendNodeHeartbeat"):
        wire.call("AT", method, filled()[method])
        forwarded = next(body for name, body, _ in wire.superlink.calls if name == method)
        kind = type(filled()[method])
        assert kind.FromString(forwarded).heartbeat_interval == ONLINE_SECONDS


@pytest.mark.parametrize("method", sorted(REQUESTS))
def test_a_body_beyond_the_size_of_a_call_is_not_parsed(wire: RelayHarness, method: str) -> None:
    body = REQUESTS[method](AT).SerializeToString() + bytes(LARGEST_BODY)
    with pytest.raises(RelayRefused, match="at most"):
        wire.call("AT", method, body)
    assert not wire.superlink.calls


def test_many_headers_are_dropped(wire: RelayHarness) -> None:
    headers = {f"flwr-{number}": "x" for number in range(10_000)} | {"flwr-signature": "s"}
    wire.call("AT", "SendNodeHeartbeat", REQUESTS["SendNodeHeartbeat"](AT), headers)
    assert wire.superlink.calls[0][2] == {"flwr-signature": "s"}


def test_a_message_is_answered_once(wire: RelayHarness) -> None:
    """A second answer could come from a copy of the node, with other noise and the same masks."""
    second = pack_frame(b"other noise", bytes(NONCE_BYTES))
    assert wire.push(CONTENT).status == 200
    calls = len(wire.superlink.calls)
    with pytest.raises(RelayRefused, match="second, different reply"):
        wire.push(second)
    assert wire.push(CONTENT).status == 200  # the node repeats a call whose answer was lost
    assert len(wire.superlink.calls) == calls
    assert wire.relay.presence()["AT"].replies == 1


@pytest.mark.parametrize("reply_to", ["", "never given", NAME])
def test_a_reply_answers_a_message_that_the_node_was_given(
    wire: RelayHarness, reply_to: str
) -> None:
    assert wire.push(CONTENT, reply_to).status == SESSION_ENDED
    assert not wire.superlink.calls


def test_a_message_of_before_the_last_sign_in_is_not_answered(wire: RelayHarness) -> None:
    wire.call("AT", "ActivateNode", REQUESTS["ActivateNode"](AT))
    assert wire.push(CONTENT).status == SESSION_ENDED
    assert wire.superlink.methods == ["ActivateNode"]


def test_a_message_whose_time_is_over_is_not_answered(wire: RelayHarness) -> None:
    wire.ask("old", created_at=1_000.0)
    assert wire.push(CONTENT, "old").status == SESSION_ENDED
    assert not wire.superlink.calls


def test_what_the_relay_remembers_of_a_node_is_bounded(wire: RelayHarness) -> None:
    for number in range(100):
        wire.ask(f"m{number}")
    assert len(wire.relay._sessions["AT"].unanswered) == MOST_UNANSWERED


def test_a_node_that_signs_in_again_and_again_is_slowed_down(wire: RelayHarness) -> None:
    """After each sign-in the server app sends its message again, which takes memory."""
    statuses = [
        wire.call("AT", "ActivateNode", REQUESTS["ActivateNode"](AT)).status for _ in range(100)
    ]
    assert statuses.count(200) <= SIGN_INS_AT_ONCE + 5
    assert statuses[-1] == SIGNED_IN_TOO_OFTEN


def test_the_object_that_is_pushed_is_the_one_of_the_message(wire: RelayHarness) -> None:
    asked = PushMessagesResponse(objects_to_push=["0" * 64, NAME], session_id="s")
    wire.superlink.will("PushMessages", asked.SerializeToString())
    wire.superlink.will("PushObject", PushObjectResponse(stored=True).SerializeToString())
    assert wire.push(CONTENT).status == 200
    pushed = [body for method, body, _ in wire.superlink.calls if method == "PushObject"]
    assert [PushObjectRequest.FromString(body).object_id for body in pushed] == [NAME]
    assert object_name(CONTENT) == NAME


# against a real SuperLink


@dataclass
class Coordinator:
    """A real SuperLink behind an exchange, and two admitted nodes."""

    superlink: SuperLink
    exchange: OpenExchange
    nodes: dict[str, Caller]
    keys: dict[str, bytes]

    def client(self, country: str) -> tuple[FleetClient, Node]:
        """Sign a node in."""
        client = FleetClient(
            self.exchange.link(self.nodes[country]),
            load_pem_private_key(self.keys[country], None),  # type: ignore[arg-type]
            build_app(lambda frame: frame),
            Incarnation(1, os.urandom(SESSION_BYTES), b""),
        )
        return client, client._activate()

    @property
    def superlink_mib(self) -> int:
        """Resident memory of the SuperLink."""
        status = Path(f"/proc/{self.superlink._processes[0].pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) >> 10


@pytest.fixture
def coordinator() -> Iterator[Coordinator]:
    with tempfile.TemporaryDirectory() as folder:
        superlink = SuperLink(Path(folder), environment={})
        superlink.start()
        thread, forwarding = LoopThread(), Forwarding()
        authority = TransportAuthority.create("danube", now())
        relay = Relay(forwarding, heartbeat=0)
        exchange = OpenExchange(
            authority, relay, enrolments=None, documents=ServedFiles(), thread=thread
        )
        thread.loop.call_soon_threadsafe(forwarding.open, superlink)
        keys = {country: new_node_auth_key() for country in ("AT", "BE")}
        with ThreadPoolExecutor(2) as pool:
            ids = pool.map(superlink.register, [public for _, public in keys.values()])
            for country, node_id in zip(keys, ids, strict=True):
                public = load_ssh_public_key(keys[country][1].encode())
                exchange.open_session(country, node_id, public_key_to_bytes(public))
        nodes = {country: caller(authority, country) for country in keys}
        private = {country: key for country, (key, _) in keys.items()}
        yield Coordinator(superlink, exchange, nodes, private)
        thread.run(forwarding.close())
        exchange.close()
        superlink.close()


def push_trees(
    ready: Event, stop: Event, port: int, authority: bytes, who: Caller, request: bytes
) -> None:
    """Send the same push again and again, over one connection.

    What floods the connection itself is tested elsewhere; one such push stalled the SuperLink.
    """
    link = ExchangeLink(
        f"{LOOPBACK}:{port}", authority=authority, key=who.key, certificate=who.certificate
    )
    while not stop.is_set():
        with suppress(LinkFault):
            link.relay(RelayRequest.FromString(request), 60)
        ready.set()
        stop.wait(1.0)
    link.close()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_other_nodes_go_on_while_one_names_700_000_objects(coordinator: Coordinator) -> None:
    hostile, own = coordinator.client("AT")
    honest, other = coordinator.client("BE")
    push = TREES["700,000 children"]()
    push.node.node_id = push.messages_list[0].metadata.src_node_id = own.node_id
    request = RelayRequest(
        method="PushMessages",
        body=push.SerializeToString(),
        object=CONTENT,
        session=hostile._transport._incarnation.session,
    )
    before = coordinator.superlink_mib
    quiet = latency(lambda: honest._send_heartbeat(other), 40, 0.02)
    arguments = (
        coordinator.exchange.port,
        coordinator.exchange.authority.certificate_pem,
        coordinator.nodes["AT"],
        request.SerializeToString(),
    )
    with flood(push_trees, *arguments):
        assert goes_on(lambda: honest._send_heartbeat(other), 100, quiet, 0.02)
    assert coordinator.superlink_mib - before < 20
