"""Checks each Fleet call of a node, and writes the request that the SuperLink gets in its place.

A request that another country's node could have made, or that Flower does not need, is refused. Of
one that is allowed, nothing is passed on but Flower's headers, the name of the message that a reply
answers, and the reply's one object. The SuperLink keeps what it receives under a lock that all
countries share; so it receives only bytes that are written here.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message

from protocols.proto.exchange_pb2 import RelayRequest
from protocols.wire.flower_frame import (
    FLEET_CALLS,
    HEADER_PREFIX,
    LARGEST_BODY,
    SESSION_BYTES,
    largest_reply,
)
from protocols.wire.flower_object import frame_size, object_name
from server.errors import CoordinatorFault
from server.exchange.fencing import SignIn
from server.exchange.relay_session import NodeSession
from server.flower.fleet_messages import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    Metadata,
    Node,
    ObjectTree,
    PullMessagesRequest,
    PushMessagesRequest,
    RecordDict,
    SendNodeHeartbeatRequest,
)
from server.flower.fleet_messages import Message as FlowerMessage
from server.membership.acting_sessions import KEY_BYTES

FLOWER_HEADERS = frozenset(
    f"{HEADER_PREFIX}{name}"
    for name in (
        *("public-key", "signature", "timestamp"),
        *("package-name", "package-version", "component-name"),
    )
)
"""Headers of the Flower client that the SuperLink checks; no other is forwarded."""
HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,1024}")
"""What a request to the SuperLink may contain in a header: printable ASCII, no line ends."""
ONLINE_SECONDS = 40.0
"""How long the SuperLink considers a node online after a heartbeat."""
LARGEST_INCARNATION = 2**31 - 1

_REQUESTS: dict[str, type[Any]] = {
    "ActivateNode": ActivateNodeRequest,
    "DeactivateNode": DeactivateNodeRequest,
    "SendNodeHeartbeat": SendNodeHeartbeatRequest,
    "PullMessages": PullMessagesRequest,
    "PushMessages": PushMessagesRequest,
}


class RelayRefused(CoordinatorFault):
    """A Fleet call that this country's certificate does not allow."""


@dataclass(frozen=True)
class Pushed:
    """A reply that a node pushes: its object, that object's name, and the message it answers."""

    reply_to: str
    name: str
    content: bytes


def flower_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return Flower's headers and drop all others. Raises RelayRefused for a malformed one."""
    flower = {name: headers[name] for name in FLOWER_HEADERS if name in headers}
    if not all(HEADER_VALUE.fullmatch(value) for value in flower.values()):
        raise RelayRefused("The call has a header that is not one of Flower's")
    return flower


def parse_request(method: str, body: bytes) -> Any:
    """Return the protobuf request of a Fleet call. Raises RelayRefused."""
    if method not in FLEET_CALLS:
        raise RelayRefused(
            f"The call {method[:40]!r} is not forwarded",
            why="the relay forwards only the calls that a node needs",
        )
    if len(body) > LARGEST_BODY:
        raise RelayRefused(
            f"A {method} request has {len(body)} bytes",
            why=f"beside its object, a call has at most {LARGEST_BODY} bytes",
        )
    try:
        request: Message = _REQUESTS[method].FromString(body)
    except DecodeError as error:
        raise RelayRefused(f"A {method} request could not be read") from error
    return request


def require_own_request(session: NodeSession, method: str, request: Any) -> None:
    """Raise RelayRefused unless the request is for the node of this session."""
    if method == "ActivateNode":
        _require(request.public_key == session.public_key, session, "another node's key")
        return
    node_id = request.node_id if method == "DeactivateNode" else request.node.node_id
    _require(node_id == session.node_id, session, "another node's id")
    if method == "PushMessages":
        sources = [message.metadata.src_node_id for message in request.messages_list]
        _require(set(sources) <= {session.node_id}, session, "a message in another node's name")
        _require(len(sources) == 1, session, "more or less than one message")


def sign_in_of(request: RelayRequest) -> SignIn:
    """Return the session that a node signs in with. Raises RelayRefused if it has another form."""
    valid = (
        len(request.session) == SESSION_BYTES
        and len(request.former) in (0, KEY_BYTES)
        and 1 <= request.incarnation <= LARGEST_INCARNATION
    )
    if not valid:
        raise RelayRefused(
            "The node signed in without a session",
            why="its program is of another version than the coordinator",
            fix="use programs of the same version",
        )
    return SignIn(request.session, request.incarnation, request.former)


def pushed(session: NodeSession, request: PushMessagesRequest, content: bytes) -> Pushed:
    """Return the reply in a push. Raises RelayRefused unless it is one message with one object.

    The object's hash is the name of the message, and the object holds a frame and nothing else.
    """
    metadata, name = request.messages_list[0].metadata, object_name(content)
    trees = [(tree.object_id, len(tree.children)) for tree in request.message_object_trees]
    asked = session.unanswered.get(metadata.reply_to_message_id)
    size, largest = frame_size(content), largest_reply(asked.group_id if asked else "")
    _require(size is not None, session, "an object that is not one frame")
    _require((size or 0) <= largest, session, "a larger reply than its study has")
    _require(metadata.message_id == name, session, "a message that is not named by its object")
    _require(trees == [(name, 0)], session, "other objects than the one of its message")
    return Pushed(metadata.reply_to_message_id, name, content)


def own_request(session: NodeSession, method: str) -> bytes:
    """Return the request of a call that differs between nodes only in the node's id and key."""
    node = Node(node_id=session.node_id)
    requests: dict[str, Message] = {
        "ActivateNode": ActivateNodeRequest(
            public_key=session.public_key, heartbeat_interval=ONLINE_SECONDS
        ),
        "DeactivateNode": DeactivateNodeRequest(node_id=session.node_id),
        "SendNodeHeartbeat": SendNodeHeartbeatRequest(node=node, heartbeat_interval=ONLINE_SECONDS),
        "PullMessages": PullMessagesRequest(node=node),
    }
    return requests[method].SerializeToString()


def push_request(session: NodeSession, asked: Metadata, name: str) -> bytes | None:
    """Return the push of a reply to the message `asked`, whose object is `name`.

    None if the time of that message is over: Flower takes no reply to it.
    """
    now = time.time()
    left = asked.created_at + asked.ttl - now
    if left <= 0:
        return None
    metadata = Metadata(
        run_id=asked.run_id,
        message_id=name,
        src_node_id=session.node_id,
        dst_node_id=asked.src_node_id,
        reply_to_message_id=asked.message_id,
        group_id=asked.group_id,
        ttl=left,
        message_type=asked.message_type,
        created_at=now,
        src_task_id=asked.dst_task_id,
        dst_task_id=asked.src_task_id,
    )
    request = PushMessagesRequest(
        node=Node(node_id=session.node_id),
        messages_list=[FlowerMessage(metadata=metadata, content=RecordDict())],
        message_object_trees=[ObjectTree(object_id=name)],
        clientapp_runtime_list=[0.0],
    )
    return bytes(request.SerializeToString())


def _require(condition: bool, session: NodeSession, what: str) -> None:  # noqa: FBT001 (a guard reads best so)
    if not condition:
        raise RelayRefused(f"{session.country} sent a request with {what}")
