"""The Fleet relay: lets one country's node use its own seat at the SuperLink, and nothing more.

It decides, call by call: is the call listed; is it made for the node id that this country was
given. It brings a message together with its object and takes a reply together with its own, so
that each crosses the border in one call; objects are never asked for by name from outside. It waits
on the node's behalf, so that a node need not poll across a border.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message

from protocols.wire.flower_frame import FLEET_CALLS, HEADER_PREFIX, LONG_POLL_SECONDS
from server.errors import OperationFault
from server.flower.fleet_messages import (
    ActivateNodeRequest,
    ConfirmMessageReceivedRequest,
    DeactivateNodeRequest,
    Node,
    PullMessagesRequest,
    PullMessagesResponse,
    PullObjectRequest,
    PullObjectResponse,
    PushMessagesRequest,
    PushMessagesResponse,
    PushObjectRequest,
    PushObjectResponse,
    SendNodeHeartbeatRequest,
)
from server.flower.presence import Presence, PresenceChanges

Forward = Callable[[str, bytes, Mapping[str, str]], Awaitable[tuple[int, bytes]]]
"""Sends a Fleet call (name, body, headers) to the SuperLink; returns status and body."""

OK = 200
STILL_ONLINE = 412
UNAVAILABLE = 503
RECHECK_SECONDS = 5.0
"""How often a waiting node's queue is looked at although nobody announced a message."""
OBJECT_SECONDS, OBJECT_PAUSE = 10.0, 0.02
"""How long a message's object may follow after the message, and how soon it is asked for again."""
CONFIRM_SECONDS = 0.25
"""How long after a message arrived the SuperLink is told to forget it."""

ONLINE_SECONDS = 45.0
"""How long a node that fell silent counts as connected; one that is there calls every 10 s, however
long it computes, and none of its calls but those that carry a payload may take over 35 s."""

HEADER_NAME = re.compile(r"[a-z0-9-]{1,64}")
HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,4096}")
"""What may be written into a request to the SuperLink: no line ends, nothing but ASCII."""

_REQUESTS: dict[str, type[Any]] = {
    "ActivateNode": ActivateNodeRequest,
    "DeactivateNode": DeactivateNodeRequest,
    "SendNodeHeartbeat": SendNodeHeartbeatRequest,
    "PullMessages": PullMessagesRequest,
    "PushMessages": PushMessagesRequest,
}


class RelayRefused(OperationFault):
    """A Fleet call that this country's certificate does not allow."""


class Carried(NamedTuple):
    """What comes back of a call: the SuperLink's status and body, and a pulled message's object."""

    status: int
    body: bytes
    object: bytes = b""


class Handed(NamedTuple):
    """A message on its way to a node, and the Flower run that it belongs to."""

    carried: Carried
    run_id: int


@dataclass
class NodeSession:
    """One country's place at the SuperLink."""

    country: str
    node_id: int
    public_key: bytes
    """The key registered for node authentication, in Flower's byte form."""
    online: bool = False
    sign_ins: int = 0
    replies: int = 0
    heard: float = 0.0
    """When it called last, on the clock of `time.monotonic`."""
    expected: int = 1
    """Messages to look for: those announced, and whatever was there before it was asked."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    handed: dict[str, Handed] = field(default_factory=dict)
    """Messages by name, until their receipt is confirmed: the SuperLink hands a message out once,
    and an answer can be lost on its way."""
    looking: asyncio.Task[Carried] | None = None

    def expect(self) -> None:
        """Note that there is something to look for."""
        self.expected += 1
        self.arrived.set()


class Relay:
    """Carries the Fleet calls of all seated countries. `changes` counts replies and sign-ins."""

    def __init__(
        self,
        forward: Forward,
        *,
        long_poll: float = LONG_POLL_SECONDS,
        confirm_after: float = CONFIRM_SECONDS,
    ) -> None:
        """`long_poll` and `confirm_after` are in seconds."""
        self._forward, self._long_poll = forward, long_poll
        self._confirm_after = confirm_after
        self._sessions: dict[str, NodeSession] = {}
        self._confirming: set[asyncio.Task[None]] = set()
        self.changes = PresenceChanges()

    def open_session(self, country: str, node_id: int, public_key: bytes) -> None:
        """Give a country its place; an earlier one is void."""
        self._sessions[country] = NodeSession(country, node_id, public_key, heard=time.monotonic())

    def presence(self) -> dict[str, Presence]:
        """Who is there, by seated country."""
        now = time.monotonic()
        return {
            country: Presence(
                session.node_id, session.sign_ins, now - session.heard, session.replies
            )
            for country, session in list(self._sessions.items())
        }

    def online(self) -> dict[str, bool]:
        """Which seated countries' nodes are connected: signed in, and heard of lately."""
        since = time.monotonic() - ONLINE_SECONDS
        return {
            country: session.online and session.heard > since
            for country, session in list(self._sessions.items())
        }

    def leave(self, country: str) -> None:
        """Count a country's node as gone: it was revoked."""
        if country in self._sessions:
            self._sessions[country].online = False

    def announce(self, countries: Iterable[str]) -> None:
        """Wake waiting nodes: one message was pushed for each of the countries."""
        for country in countries:
            if country in self._sessions:
                self._sessions[country].expect()

    async def call(
        self,
        country: str,
        method: str,
        body: bytes,
        headers: Mapping[str, str],
        content: bytes = b"",
        received: str = "",
    ) -> Carried:
        """Carry one call of this country's node.

        `content` is the object of a message that it pushes, `received` the name of the message
        that came with its last look and need not be handed out again.

        Raises RelayRefused where the call, its node id or its message is not this country's.
        """
        session = self._seat_of(country)
        request = _parsed(method, body)
        _check(session, method, request)
        session.heard = time.monotonic()
        headers = _carried(headers)
        if method == "PullMessages":
            return await self._wait_for_message(session, received, body, headers)
        if method == "PushMessages":
            return await self._push(session, request, body, headers, content)
        status, answer = await self._forward(method, body, headers)
        if method == "ActivateNode" and status == STILL_ONLINE:
            status, answer = await self._activate_again(session, body, headers)
        if status == OK:
            # a new one, where the SuperLink was started meanwhile
            self._remember(self._seat_of(country), method)
        return Carried(status, answer)

    def _seat_of(self, country: str) -> NodeSession:
        if country not in self._sessions:
            raise RelayRefused(
                f"{country} has no node registered here",
                why="its node was not admitted, or the coordinator is still starting",
                fix="admit the node, or try again in a minute",
            )
        return self._sessions[country]

    def _remember(self, session: NodeSession, method: str) -> None:
        if method == "ActivateNode":
            session.online, session.heard = True, time.monotonic()
            session.sign_ins += 1
            session.handed.clear()  # whoever signs in anew is asked anew
            session.expect()
            self.changes.note()
        elif method == "DeactivateNode":
            session.online = False

    async def _activate_again(
        self, session: NodeSession, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """After a node's crash the SuperLink still thinks it online: end that session first."""
        leave = DeactivateNodeRequest(node_id=session.node_id).SerializeToString()
        await self._forward("DeactivateNode", leave, headers)
        return await self._forward("ActivateNode", body, headers)

    async def _wait_for_message(
        self, session: NodeSession, received: str, body: bytes, headers: Mapping[str, str]
    ) -> Carried:
        """Look when a message was announced, now and then although none was, and at the end."""
        self._confirm(session, received, headers)
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._long_poll
        while True:
            if not session.handed and not session.expected:
                session.arrived.clear()
                await _event_or_timeout(session.arrived, min(deadline - clock(), RECHECK_SECONDS))
            carried = await asyncio.shield(self._looking(session, body, headers))
            if session.handed or carried.status != OK or deadline <= clock():
                return carried

    def _looking(
        self, session: NodeSession, body: bytes, headers: Mapping[str, str]
    ) -> asyncio.Task[Carried]:
        """Return the seat's one look under way, which goes on even if the node is gone meanwhile.

        Were there one for each call, a node that hangs up again and again could pile up as many
        as it likes at the SuperLink, which all countries share.
        """
        if session.looking is None or session.looking.done():
            session.looking = asyncio.ensure_future(self._look(session, body, headers))
        return session.looking

    async def _look(self, session: NodeSession, body: bytes, headers: Mapping[str, str]) -> Carried:
        """Return a message whose receipt is not confirmed, or what the SuperLink has."""
        if session.handed:
            return next(iter(session.handed.values())).carried
        expected = session.expected
        status, answer = await self._forward("PullMessages", body, headers)
        found = PullMessagesResponse.FromString(answer).messages_list if status == OK else ()
        session.expected = max(0, session.expected - (1 if found else expected))
        if not found:
            return Carried(status, answer)
        metadata = found[0].metadata
        content = await self._object(session, metadata, headers)
        handed = Handed(Carried(OK, answer, content), metadata.run_id)
        session.handed[metadata.message_id] = handed
        session.arrived.set()
        return handed.carried

    async def _object(
        self, session: NodeSession, metadata: Any, headers: Mapping[str, str]
    ) -> bytes:
        """Return the object that a message is named by; empty where it does not come."""
        pull = PullObjectRequest(
            node=Node(node_id=session.node_id),
            run_id=metadata.run_id,
            object_id=metadata.message_id,
        ).SerializeToString()
        clock = asyncio.get_running_loop().time
        deadline = clock() + OBJECT_SECONDS
        while clock() < deadline:
            status, answer = await self._forward("PullObject", pull, headers)
            found = PullObjectResponse.FromString(answer) if status == OK else None
            if found is None or not found.object_found or found.object_available:
                return found.object_content if found else b""
            await asyncio.sleep(OBJECT_PAUSE)
        return b""

    def _confirm(self, session: NodeSession, name: str, headers: Mapping[str, str]) -> None:
        """Forget a message that arrived, here and at the SuperLink; nobody waits for that."""
        handed = session.handed.pop(name, None)
        if handed is None:
            return
        confirm = ConfirmMessageReceivedRequest(
            node=Node(node_id=session.node_id), run_id=handed.run_id, message_object_id=name
        )
        task = asyncio.ensure_future(self._confirm_later(confirm.SerializeToString(), headers))
        self._confirming.add(task)
        task.add_done_callback(self._confirming.discard)

    async def _confirm_later(self, confirm: bytes, headers: Mapping[str, str]) -> None:
        """Replies come together, and the SuperLink takes one call at a time: let them pass."""
        await asyncio.sleep(self._confirm_after)
        await self._forward("ConfirmMessageReceived", confirm, headers)

    async def _push(
        self,
        session: NodeSession,
        request: PushMessagesRequest,
        body: bytes,
        headers: Mapping[str, str],
        content: bytes,
    ) -> Carried:
        """Hand over a reply and then its object; only then is there a reply to be looked for."""
        metadata = request.messages_list[0].metadata
        self._confirm(session, metadata.reply_to_message_id, headers)
        status, answer = await self._forward("PushMessages", body, headers)
        if status != OK:
            return Carried(status, answer)
        asked, name = PushMessagesResponse.FromString(answer), hashlib.sha256(content).hexdigest()
        if name in asked.objects_to_push:
            push = PushObjectRequest(
                node=Node(node_id=session.node_id),
                run_id=metadata.run_id,
                object_id=name,
                object_content=content,
                session_id=asked.session_id,
            )
            status, stored = await self._forward("PushObject", push.SerializeToString(), headers)
            if status != OK or not PushObjectResponse.FromString(stored).stored:
                return Carried(UNAVAILABLE if status == OK else status, b"")
        session.replies += 1
        self.changes.note()
        return Carried(OK, answer)


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


def _parsed(method: str, body: bytes) -> Any:
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


def _check(session: NodeSession, method: str, request: Any) -> None:
    if method == "ActivateNode":
        _must(request.public_key == session.public_key, session, "another node's key")
        return
    node_id = request.node_id if method == "DeactivateNode" else request.node.node_id
    _must(node_id == session.node_id, session, "another node's id")
    if method == "PushMessages":
        sources = [message.metadata.src_node_id for message in request.messages_list]
        _must(set(sources) <= {session.node_id}, session, "a message in another node's name")
        _must(len(sources) == 1, session, "more or less than one message")


def _must(condition: bool, session: NodeSession, what: str) -> None:  # noqa: FBT001 (a guard reads best so)
    if not condition:
        raise RelayRefused(f"{session.country} asked with {what}")
