"""Checks each Fleet request before it is forwarded: its call, node id, key and headers.

A request that another country's node could have made, or that Flower does not need, is refused.
"""

import re
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError, Message

from protocols.wire.flower_frame import FLEET_CALLS, HEADER_PREFIX
from server.errors import CoordinatorFault
from server.exchange.relay_session import NodeSession
from server.flower.fleet_messages import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    SendNodeHeartbeatRequest,
)

HEADER_NAME = re.compile(r"[a-z0-9-]{1,64}")
HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,4096}")
"""What a request to the SuperLink may contain in a header: printable ASCII, no line ends."""

_REQUESTS: dict[str, type[Any]] = {
    "ActivateNode": ActivateNodeRequest,
    "DeactivateNode": DeactivateNodeRequest,
    "SendNodeHeartbeat": SendNodeHeartbeatRequest,
    "PullMessages": PullMessagesRequest,
    "PushMessages": PushMessagesRequest,
}


class RelayRefused(CoordinatorFault):
    """A Fleet call that this country's certificate does not allow."""


def flower_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return Flower's headers and drop all others. Raises RelayRefused for a malformed one."""
    flower = {name: value for name, value in headers.items() if name.startswith(HEADER_PREFIX)}
    for name, value in flower.items():
        if not (HEADER_NAME.fullmatch(name) and HEADER_VALUE.fullmatch(value)):
            raise RelayRefused("The call has a header that is not one of Flower's")
    return flower


def parse_request(method: str, body: bytes) -> Any:
    """Return the protobuf request of a Fleet call. Raises RelayRefused."""
    if method not in FLEET_CALLS:
        raise RelayRefused(
            f"The call {method[:40]!r} is not forwarded",
            why="the relay forwards only the calls that a node needs",
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


def _require(condition: bool, session: NodeSession, what: str) -> None:  # noqa: FBT001 (a guard reads best so)
    if not condition:
        raise RelayRefused(f"{session.country} sent a request with {what}")
