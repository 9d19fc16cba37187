"""The Fleet relay: forwards the Fleet calls of each country's node to the SuperLink.

It decides for each call: is the call listed, is it for the node id of this country, and does it
come from the session that acts for this node? It delivers a message together with its object, and
accepts a reply together with its object, so that each crosses the border in one call; nobody
outside can request an object by name. A node may answer each message that it was given once. The
relay waits for messages on behalf of the node, so that the node need not poll across the border.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from protocols.proto.exchange_pb2 import RelayRequest
from protocols.wire.flower_frame import (
    HEARTBEAT_SECONDS,
    IDENTITY_IN_USE,
    LONG_POLL_SECONDS,
    SESSION_ENDED,
    SIGNED_IN_TOO_OFTEN,
    STILL_CONNECTED,
)
from server.exchange.fencing import Claim, Fence, Standing
from server.exchange.fleet_requests import (
    Pushed,
    RelayRefused,
    flower_headers,
    own_request,
    parse_request,
    push_request,
    pushed,
    require_own_request,
    sign_in_of,
)
from server.exchange.relay_session import CallReply, Delivered, NodeSession
from server.flower.fleet_messages import (
    ConfirmMessageReceivedRequest,
    Node,
    PullMessagesResponse,
    PullObjectRequest,
    PullObjectResponse,
    PushMessagesResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from server.flower.presence import Presence, PresenceChanges
from server.membership.certificates import Renewer

Forward = Callable[[str, bytes, Mapping[str, str]], Awaitable[tuple[int, bytes]]]
"""Sends a Fleet call (name, body, headers) to the SuperLink; returns status and body."""

OK = 200
STILL_ONLINE = 412
UNAVAILABLE = 503
RECHECK_SECONDS = 5.0
"""How often a waiting node's messages are pulled although none was announced."""
OBJECT_SECONDS, OBJECT_PAUSE = 10.0, 0.02
"""How long after a message its object may arrive, and the pause between two requests for it."""
CONFIRM_SECONDS = 0.25
"""How long after a message was received the SuperLink is asked to delete it."""

ONLINE_SECONDS = 45.0
"""How long a silent node counts as connected. A connected node calls every 5 s, however long it
computes, and no call without a payload may take more than 35 s."""
_STATUS = {Standing.WAITS: STILL_CONNECTED, Standing.COPY: IDENTITY_IN_USE}


class Relay:
    """Forwards the Fleet calls of all registered nodes; `changes` counts replies and sign-ins."""

    def __init__(
        self,
        forward: Forward,
        *,
        fence: Fence | None = None,
        long_poll: float = LONG_POLL_SECONDS,
        heartbeat: float = HEARTBEAT_SECONDS,
        confirm_after: float = CONFIRM_SECONDS,
    ) -> None:
        """Without a `fence`, no session is stored. Times are in seconds.

        A pull is held for `long_poll`, a heartbeat for `heartbeat`.
        """
        self._forward, self._long_poll, self._heartbeat = forward, long_poll, heartbeat
        self._fence = fence or Fence()
        self._confirm_after = confirm_after
        self._sessions: dict[str, NodeSession] = {}
        self._confirming: set[asyncio.Task[None]] = set()
        self.changes = PresenceChanges()

    def open_session(self, country: str, node_id: int, public_key: bytes) -> None:
        """Open the session of a country's node; an earlier session of the country ends."""
        now = time.monotonic()
        self._sessions[country] = NodeSession(country, node_id, public_key, last_call=now)

    def presence(self) -> dict[str, Presence]:
        """Return the presence of each registered node, by country."""
        now = time.monotonic()
        return {
            country: Presence(
                session.node_id, session.sign_ins, now - session.last_call, session.replies
            )
            for country, session in list(self._sessions.items())
        }

    def online(self) -> dict[str, bool]:
        """Return by country whether the node is connected: signed in, with a recent call."""
        since = time.monotonic() - ONLINE_SECONDS
        return {
            country: session.online and session.last_call > since
            for country, session in list(self._sessions.items())
        }

    def disputes(self) -> tuple[str, ...]:
        """Return the countries whose node's identity two machines have."""
        return self._fence.disputes()

    def acted(self, country: str, session: bytes) -> bool:
        """Return whether a session acts for a country's node, or acted before."""
        return self._fence.acted(country, session)

    def claim(self, country: str, session: bytes, address: str) -> Claim:
        """Return what a session is for a country's node; see `Fence.claim`."""
        return self._fence.claim(country, session, address)

    def renewer(self, country: str, session: bytes) -> Renewer:
        """Return whether a call that states this session may renew the node's certificate."""
        return Renewer(self._fence.acts(country, session), self._fence.disputed(country))

    def mark_offline(self, country: str) -> None:
        """Count a country's node as disconnected, after its revocation."""
        self._fence.forget(country)
        if country in self._sessions:
            self._sessions[country].online = False

    def announce(self, countries: Iterable[str]) -> None:
        """Wake waiting nodes: one message was pushed for each of the countries."""
        for country in countries:
            if country in self._sessions:
                self._sessions[country].expect()

    async def call(self, country: str, request: RelayRequest, *, address: str = "") -> CallReply:
        """Forward one call of this country's node, which came from this address.

        Raises RelayRefused if the call, its node id or its message is not this country's.
        """
        session, method = self._session_of(country), request.method
        fleet = parse_request(method, request.body)
        require_own_request(session, method, fleet)
        headers = flower_headers(request.headers)
        refused = self._standing(session, request, address)
        if refused is None:
            session.last_call = time.monotonic()
            try:
                reply = await self._carry_out(session, request, fleet, headers)
            except asyncio.CancelledError:  # the connection to the node broke
                self._fence.ended(country, request.session)
                raise
            if not self._fence.acts(country, request.session):
                refused = SESSION_ENDED  # another one signed in meanwhile, and gets the message
        if refused is not None:
            reply = CallReply(refused, b"")
        return reply._replace(disputed=self._fence.disputed(country))

    def _standing(self, session: NodeSession, request: RelayRequest, address: str) -> int | None:
        """Return the status with which a call is refused that another session may make."""
        country = session.country
        claim = self._fence.claim(country, request.session, address)
        if request.method != "ActivateNode":
            return None if self._fence.heard(country, request.session) else SESSION_ENDED
        sign_in = sign_in_of(request)
        if not session.may_sign_in(claim.rank, time.monotonic()):
            return SIGNED_IN_TOO_OFTEN
        return _STATUS.get(self._fence.sign_in(country, sign_in))

    async def _carry_out(
        self, session: NodeSession, request: RelayRequest, fleet: Any, headers: Mapping[str, str]
    ) -> CallReply:
        method = request.method
        if method == "PushMessages":
            return await self._push(session, pushed(session, fleet, request.object), headers)
        body = own_request(session, method)
        if method == "PullMessages":
            return await self._wait_for_message(session, request.received, body, headers)
        status, answer = await self._forward(method, body, headers)
        if method == "SendNodeHeartbeat" and status == OK:
            await asyncio.sleep(self._heartbeat)
        if method == "ActivateNode" and status == STILL_ONLINE:
            status, answer = await self._activate_again(session, body, headers)
        if status == OK:
            # the session is a new one if the SuperLink was restarted meanwhile
            self._note_sign_in_or_out(self._session_of(session.country), request)
        return CallReply(status, answer)

    def _session_of(self, country: str) -> NodeSession:
        if country not in self._sessions:
            raise RelayRefused(
                f"{country} has no node registered here",
                why="its node was not admitted, or the coordinator is still starting",
                fix="admit the node, or try again in a minute",
            )
        return self._sessions[country]

    def _note_sign_in_or_out(self, session: NodeSession, request: RelayRequest) -> None:
        if request.method == "ActivateNode":
            session.online, session.last_call = True, time.monotonic()
            session.sign_ins += 1
            session.unconfirmed.clear()  # after a sign-in the server app sends its messages again
            session.unanswered.clear()
            session.expect()
            self.changes.note()
        elif request.method == "DeactivateNode":
            session.online = False
            self._fence.ended(session.country, request.session)

    async def _activate_again(
        self, session: NodeSession, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Activate a node that the SuperLink still counts as online after the node's crash."""
        await self._forward("DeactivateNode", own_request(session, "DeactivateNode"), headers)
        return await self._forward("ActivateNode", body, headers)

    async def _wait_for_message(
        self, session: NodeSession, received: str, body: bytes, headers: Mapping[str, str]
    ) -> CallReply:
        """Return the next message; pull after an announcement, at intervals and at the end."""
        self._confirm(session, received, headers)
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._long_poll
        while True:
            if not session.unconfirmed and not session.expected:
                session.arrived.clear()
                await _event_or_timeout(session.arrived, min(deadline - clock(), RECHECK_SECONDS))
            reply = await asyncio.shield(self._pull_task(session, body, headers))
            if session.unconfirmed or reply.status != OK or deadline <= clock():
                return reply

    def _pull_task(
        self, session: NodeSession, body: bytes, headers: Mapping[str, str]
    ) -> asyncio.Task[CallReply]:
        """Return the session's only pull in progress; it continues if the node disconnects.

        With one pull for each call, a node that disconnects again and again could start any number
        of them at the SuperLink, which all countries share.
        """
        if session.pulling is None or session.pulling.done():
            session.pulling = asyncio.ensure_future(self._pull(session, body, headers))
        return session.pulling

    async def _pull(
        self, session: NodeSession, body: bytes, headers: Mapping[str, str]
    ) -> CallReply:
        """Return an unconfirmed message again, or pull the next one from the SuperLink."""
        if session.unconfirmed:
            return next(iter(session.unconfirmed.values())).reply
        status, answer = await self._forward("PullMessages", body, headers)
        messages = PullMessagesResponse.FromString(answer).messages_list if status == OK else ()
        session.expected = max(0, session.expected - 1)
        if not messages:
            return CallReply(status, answer)
        metadata = messages[0].metadata
        content = await self._object(session, metadata, headers)
        delivered = Delivered(CallReply(OK, answer, content), metadata.run_id)
        session.unconfirmed[metadata.message_id] = delivered
        session.note_delivery(metadata)
        session.arrived.set()
        return delivered.reply

    async def _object(
        self, session: NodeSession, metadata: Any, headers: Mapping[str, str]
    ) -> bytes:
        """Return the object with the message's name; empty if it does not arrive in time."""
        pull = PullObjectRequest(
            node=Node(node_id=session.node_id),
            run_id=metadata.run_id,
            object_id=metadata.message_id,
        ).SerializeToString()
        clock = asyncio.get_running_loop().time
        deadline = clock() + OBJECT_SECONDS
        while clock() < deadline:
            status, answer = await self._forward("PullObject", pull, headers)
            pulled = PullObjectResponse.FromString(answer) if status == OK else None
            if pulled is None or not pulled.object_found or pulled.object_available:
                return pulled.object_content if pulled else b""
            await asyncio.sleep(OBJECT_PAUSE)
        return b""

    def _confirm(self, session: NodeSession, name: str, headers: Mapping[str, str]) -> None:
        """Forget a message that arrived, and have the SuperLink delete it in the background."""
        delivered = session.unconfirmed.pop(name, None)
        if delivered is None:
            return
        confirm = ConfirmMessageReceivedRequest(
            node=Node(node_id=session.node_id), run_id=delivered.run_id, message_object_id=name
        )
        task = asyncio.ensure_future(self._confirm_later(confirm.SerializeToString(), headers))
        self._confirming.add(task)
        task.add_done_callback(self._confirming.discard)

    async def _confirm_later(self, confirm: bytes, headers: Mapping[str, str]) -> None:
        """Confirm after a pause, so that the replies, which arrive together, are served first."""
        await asyncio.sleep(self._confirm_after)
        await self._forward("ConfirmMessageReceived", confirm, headers)

    async def _push(
        self, session: NodeSession, reply: Pushed, headers: Mapping[str, str]
    ) -> CallReply:
        """Push a reply and then its object; count the reply once both are stored."""
        answered = session.answers.get(reply.reply_to)
        if answered is not None:
            return _repeated(session, reply, answered)
        self._confirm(session, reply.reply_to, headers)
        asked = session.unanswered.get(reply.reply_to)
        body = None if asked is None else push_request(session, asked, reply.name)
        if asked is None or body is None:
            return CallReply(SESSION_ENDED, b"")
        status, answer = await self._forward("PushMessages", body, headers)
        if status == OK:
            status = await self._push_object(session, asked.run_id, reply, answer, headers)
        if status != OK:
            return CallReply(status, b"")
        session.note_answer(reply.reply_to, reply.name)
        session.replies += 1
        self.changes.note()
        return CallReply(OK, b"")

    async def _push_object(
        self,
        session: NodeSession,
        run_id: int,
        reply: Pushed,
        answer: bytes,
        headers: Mapping[str, str],
    ) -> int:
        """Push the object of a reply if the SuperLink asks for it; return the status."""
        asked = PushMessagesResponse.FromString(answer)
        if reply.name not in asked.objects_to_push:
            return OK
        push = PushObjectRequest(
            node=Node(node_id=session.node_id),
            run_id=run_id,
            object_id=reply.name,
            object_content=reply.content,
            session_id=asked.session_id,
        )
        status, stored = await self._forward("PushObject", push.SerializeToString(), headers)
        if status == OK and not PushObjectResponse.FromString(stored).stored:
            return UNAVAILABLE
        return status


def _repeated(session: NodeSession, reply: Pushed, answered: str) -> CallReply:
    """Answer a push of a reply that is stored. Raises RelayRefused for another reply.

    One answer in a place: a second one could come from a copy of the node, with other noise.
    """
    if reply.name != answered:
        raise RelayRefused(
            f"{session.country} sent a second, different reply to one message",
            why="the first one counts; a copy of the node may have sent it",
        )
    return CallReply(OK, b"")


async def _event_or_timeout(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
