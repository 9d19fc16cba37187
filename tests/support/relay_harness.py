"""A relay with two node sessions over a scripted SuperLink, and a request for each of its calls."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    Message,
    Metadata,
    ObjectTree,
    PullObjectResponse,
)
from flwr.proto.node_pb2 import Node

from protocols.proto.exchange_pb2 import RelayRequest
from protocols.wire.flower_frame import MESSAGE_TYPE, NONCE_BYTES, group_of
from protocols.wire.flower_object import pack_frame
from server.exchange.fencing import Fence, SignIn
from server.exchange.fleet_requests import RelayRefused
from server.exchange.relay import Relay
from server.exchange.relay_session import CallReply
from tests.support.exchange_server import ScriptedSuperLink, incoming, tree

AT, BE = 101, 202
KEYS = {"AT": b"key of AT", "BE": b"key of BE"}
SESSIONS = {"AT": b"session of AT...", "BE": b"session of BE..."}
POLL = 0.2


class RelayHarness:
    """A relay with two node sessions, over a scripted SuperLink."""

    def __init__(self) -> None:
        self.superlink = ScriptedSuperLink()
        self.fence = Fence()
        self.relay = Relay(
            self.superlink.forward, fence=self.fence, long_poll=POLL, heartbeat=0, confirm_after=0
        )
        for country, node in {"AT": AT, "BE": BE}.items():
            self.relay.open_session(country, node, KEYS[country])
            self.fence.sign_in(country, SignIn(SESSIONS[country], 1, b""))

    def call(
        self,
        country: str,
        method: str,
        request: Any,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> CallReply:
        asked = relayed(country, method, request, headers, **more)

        async def act() -> CallReply:
            try:
                return await self.relay.call(country, asked)
            finally:
                for _ in range(3):  # so that background calls are sent too
                    await asyncio.sleep(0)

        return asyncio.run(act())

    def push(self, content: bytes, reply_to: str = "asked") -> CallReply:
        """Have AT push a reply."""
        return self.call("AT", "PushMessages", push_of(content, reply_to), object=content)

    def refused(self, country: str, method: str, request: Any, headers: Any = None) -> str:
        before = list(self.superlink.calls)
        with pytest.raises(RelayRefused) as caught:
            self.call(country, method, request, headers)
        assert self.superlink.calls == before, "a refused call reached the SuperLink"
        return str(caught.value)

    def bring(self, country: str, node_id: int, name: str, content: bytes = b"") -> None:
        """Have a message arrive at a country."""
        self.superlink.will("PullMessages", incoming(tree(name)))
        self.superlink.will("PullObject", there(content))
        self.call(country, "PullMessages", PullMessagesRequest(node=Node(node_id=node_id)))

    def ask(self, name: str = "asked", *, largest: int | None = None, **changes: Any) -> None:
        """Note that AT was given a message, to which it may reply with `largest` bytes."""
        group = "" if largest is None else group_of(largest)
        fields = {"ttl": 60.0, "created_at": time.time(), "run_id": 7, "src_node_id": 1} | changes
        metadata = Metadata(message_id=name, group_id=group, message_type=MESSAGE_TYPE, **fields)
        self.relay._sessions["AT"].note_delivery(metadata)


def push_of(content: bytes, reply_to: str = "asked", node: int = AT) -> PushMessagesRequest:
    """Return the push of a reply as an honest node makes it."""
    name = hashlib.sha256(content).hexdigest()
    metadata = Metadata(message_id=name, src_node_id=node, reply_to_message_id=reply_to)
    return PushMessagesRequest(
        node=Node(node_id=node),
        messages_list=[Message(metadata=metadata)],
        message_object_trees=[ObjectTree(object_id=name)],
    )


def relayed(
    country: str,
    method: str,
    request: Any,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> RelayRequest:
    """Return a call as a country's node makes it, in the session with which it is signed in."""
    more.setdefault("session", SESSIONS.get(country, SESSIONS["AT"]))
    if method == "ActivateNode":
        more.setdefault("incarnation", 1)
    if method == "PushMessages":
        more.setdefault("object", CONTENT)
    body = request if isinstance(request, bytes) else request.SerializeToString()
    return RelayRequest(method=method, body=body, headers=headers or {}, **more)


CONTENT = pack_frame(b"a reply", bytes(NONCE_BYTES))
NAME = hashlib.sha256(CONTENT).hexdigest()

REQUESTS: dict[str, Callable[[int], Any]] = {
    "ActivateNode": lambda node: ActivateNodeRequest(public_key=KEYS["AT" if node == AT else "BE"]),
    "DeactivateNode": lambda node: DeactivateNodeRequest(node_id=node),
    "SendNodeHeartbeat": lambda node: SendNodeHeartbeatRequest(node=Node(node_id=node)),
    "PullMessages": lambda node: PullMessagesRequest(node=Node(node_id=node)),
    "PushMessages": lambda node: push_of(CONTENT, node=node),
}


def there(content: bytes) -> bytes:
    response = PullObjectResponse(object_found=True, object_available=True, object_content=content)
    return bytes(response.SerializeToString())


LATE = bytes(PullObjectResponse(object_found=True).SerializeToString())
GONE = bytes(PullObjectResponse().SerializeToString())
