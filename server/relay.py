"""The Fleet relay: lets one country's node use its own seat at the SuperLink, and nothing more.

It decides, call by call: is the call listed; is it made for the node id that this country was
given; is the object one that was addressed to this node, or one that the SuperLink asked it for.
It waits on the node's behalf, so that a node need not poll across a border.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from google.protobuf.message import DecodeError, Message

from protocols.carrier import FLEET_CALLS, HEADER_PREFIX, LONG_POLL_SECONDS
from server.errors import OperationFault
from server.presence import Presence

Forward = Callable[[str, bytes, Mapping[str, str]], Awaitable[tuple[int, bytes]]]
"""Sends a Fleet call (name, body, headers) to the SuperLink; returns status and body."""

OK = 200
STILL_ONLINE = 412
RECHECK_SECONDS = 1.0
"""How often a waiting node's queue is looked at although nobody announced a message."""
MAX_OBJECTS = 4096
"""Objects that one seat may hold at a time; older ones are forgotten."""

HEADER_NAME = re.compile(r"[a-z0-9-]{1,64}")
HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,4096}")
"""What may be written into a request to the SuperLink: no line ends, nothing but ASCII."""

_REQUESTS: dict[str, type[Any]] = {
    "ActivateNode": ActivateNodeRequest,
    "DeactivateNode": DeactivateNodeRequest,
    "SendNodeHeartbeat": SendNodeHeartbeatRequest,
    "PullMessages": PullMessagesRequest,
    "PullObject": PullObjectRequest,
    "ConfirmMessageReceived": ConfirmMessageReceivedRequest,
    "PushMessages": PushMessagesRequest,
    "PushObject": PushObjectRequest,
}


class RelayRefused(OperationFault):
    """A Fleet call that this country's certificate does not allow."""


@dataclass
class Seat:
    """One country's place at the SuperLink."""

    country: str
    node_id: int
    public_key: bytes
    """The key registered for node authentication, in Flower's byte form."""
    online: bool = False
    sign_ins: int = 0
    heard: float = 0.0
    """When it called last, on the clock of `time.monotonic`."""
    incoming: dict[str, None] = field(default_factory=dict)
    """Objects addressed to this node, oldest first."""
    outgoing: dict[str, None] = field(default_factory=dict)
    """Objects that the SuperLink asked this node for."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    handed: dict[str, bytes] = field(default_factory=dict)
    """Answers that brought a message, by its id, until its receipt is confirmed: the SuperLink
    hands a message out once, and an answer can be lost on its way."""


class Relay:
    """Carries the Fleet calls of all seated countries."""

    def __init__(self, forward: Forward, *, long_poll: float = LONG_POLL_SECONDS) -> None:
        self._forward, self._long_poll = forward, long_poll
        self._seats: dict[str, Seat] = {}

    def seat(self, country: str, node_id: int, public_key: bytes) -> None:
        """Give a country its place; an earlier one is void."""
        self._seats[country] = Seat(country, node_id, public_key, heard=time.monotonic())

    def presence(self) -> dict[str, Presence]:
        """Who is there, by seated country."""
        now = time.monotonic()
        return {
            country: Presence(seat.node_id, seat.sign_ins, now - seat.heard)
            for country, seat in self._seats.items()
        }

    def online(self) -> dict[str, bool]:
        """Which seated countries' nodes are connected."""
        return {country: seat.online for country, seat in self._seats.items()}

    def announce(self) -> None:
        """Wake every waiting node: messages were pushed."""
        for seat in self._seats.values():
            seat.arrived.set()

    async def call(
        self, country: str, method: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Carry one call of this country's node; returns the SuperLink's status and body.

        Raises RelayRefused where the call, its node id or its object is not this country's.
        """
        seat = self._seat_of(country)
        request = _parsed(method, body)
        _check(seat, method, request)
        seat.heard = time.monotonic()
        headers = _carried(headers)
        if method == "PullMessages":
            return await self._wait_for_messages(seat, body, headers)
        status, answer = await self._forward(method, body, headers)
        if method == "ActivateNode" and status == STILL_ONLINE:
            status, answer = await self._activate_again(seat, body, headers)
        if status == OK:
            seat = self._seat_of(country)  # a new one, where the SuperLink was started meanwhile
            _remember(seat, method, request, answer)
        return status, answer

    def _seat_of(self, country: str) -> Seat:
        if country not in self._seats:
            raise RelayRefused(
                f"{country} has no node registered here",
                why="its node was not admitted, or the coordinator is still starting",
                fix="admit the node, or try again in a minute",
            )
        return self._seats[country]

    async def _activate_again(
        self, seat: Seat, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """After a node's crash the SuperLink still thinks it online: end that session first."""
        leave = DeactivateNodeRequest(node_id=seat.node_id).SerializeToString()
        await self._forward("DeactivateNode", leave, headers)
        return await self._forward("ActivateNode", body, headers)

    async def _wait_for_messages(
        self, seat: Seat, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        deadline = asyncio.get_running_loop().time() + self._long_poll
        while True:
            seat.arrived.clear()
            looking = asyncio.ensure_future(self._look(seat, body, headers))
            status, answer = await asyncio.shield(looking)  # even if the node is gone meanwhile
            if status != OK or PullMessagesResponse.FromString(answer).messages_list:
                return status, answer
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return status, answer
            await _event_or_timeout(seat.arrived, min(left, RECHECK_SECONDS))

    async def _look(self, seat: Seat, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Return a message whose receipt is not confirmed, or what the SuperLink has."""
        if seat.handed:
            return OK, next(iter(seat.handed.values()))
        status, answer = await self._forward("PullMessages", body, headers)
        if status == OK:
            _note_incoming(seat, answer)
        return status, answer


async def _event_or_timeout(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


def _carried(headers: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in headers.items() if name.startswith(HEADER_PREFIX)}
    if not all(HEADER_NAME.fullmatch(k) and HEADER_VALUE.fullmatch(v) for k, v in kept.items()):
        raise RelayRefused("A header that is no header of Flower's was sent")
    return kept


def _parsed(method: str, body: bytes) -> Message:
    if method not in FLEET_CALLS:
        raise RelayRefused(
            f"The call {method[:40]!r} is not carried",
            why="the relay passes the calls that a node needs and no other",
        )
    try:
        request: Message = _REQUESTS[method].FromString(body)
    except DecodeError as error:
        raise RelayRefused(f"A {method} request could not be read") from error
    return request


def _check(seat: Seat, method: str, request: Any) -> None:
    if method == "ActivateNode":
        _must(request.public_key == seat.public_key, seat, "another node's key")
        return
    node_id = request.node_id if method == "DeactivateNode" else request.node.node_id
    _must(node_id == seat.node_id, seat, "another node's id")
    if method == "PullObject":
        _must(request.object_id in seat.incoming, seat, "an object not addressed to it")
    if method == "ConfirmMessageReceived":
        _must(request.message_object_id in seat.incoming, seat, "a message not addressed to it")
    if method == "PushObject":
        _must(request.object_id in seat.outgoing, seat, "an object that nobody asked for")
    if method == "PushMessages":
        sources = {message.metadata.src_node_id for message in request.messages_list}
        _must(sources <= {seat.node_id}, seat, "a message in another node's name")


def _must(condition: bool, seat: Seat, what: str) -> None:  # noqa: FBT001 (a guard reads best so)
    if not condition:
        raise RelayRefused(f"{seat.country} asked with {what}")


def _remember(seat: Seat, method: str, request: Any, answer: bytes) -> None:
    if method == "ActivateNode":
        seat.online, seat.heard = True, time.monotonic()
        seat.sign_ins += 1
        seat.handed.clear()  # whoever signs in anew is asked anew
    elif method == "DeactivateNode":
        seat.online = False
    elif method == "ConfirmMessageReceived":
        seat.handed.pop(request.message_object_id, None)
    elif method == "PushMessages":
        asked = PushMessagesResponse.FromString(answer).objects_to_push
        _keep(seat.outgoing, asked)


def _note_incoming(seat: Seat, answer: bytes) -> None:
    """Note which objects are now addressed to the seat."""
    for tree in PullMessagesResponse.FromString(answer).message_object_trees:
        _keep(seat.incoming, _object_ids(tree))
        seat.handed[tree.object_id] = answer


def _object_ids(tree: ObjectTree) -> list[str]:
    return [tree.object_id, *(name for child in tree.children for name in _object_ids(child))]


def _keep(known: dict[str, None], names: Any) -> None:
    known.update(dict.fromkeys(names))
    for name in list(known)[: max(0, len(known) - MAX_OBJECTS)]:
        del known[name]
