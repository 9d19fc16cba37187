"""A relay with two node sessions over a scripted SuperLink, and a request for each of its calls."""

import asyncio
import hashlib
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
    PullObjectResponse,
)
from flwr.proto.node_pb2 import Node

from server.exchange.fleet_requests import RelayRefused
from server.exchange.relay import Relay
from server.exchange.relay_session import CallReply
from tests.support.exchange_server import ScriptedSuperLink, incoming, tree

AT, BE = 101, 202
KEYS = {"AT": b"key of AT", "BE": b"key of BE"}
POLL = 0.2


class RelayHarness:
    """A relay with two node sessions, over a scripted SuperLink."""

    def __init__(self) -> None:
        self.superlink = ScriptedSuperLink()
        self.relay = Relay(self.superlink.forward, long_poll=POLL, confirm_after=0)
        self.relay.open_session("AT", AT, KEYS["AT"])
        self.relay.open_session("BE", BE, KEYS["BE"])

    def call(
        self,
        country: str,
        method: str,
        request: Any,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> CallReply:
        body = request if isinstance(request, bytes) else request.SerializeToString()

        async def act() -> CallReply:
            try:
                return await self.relay.call(country, method, body, headers or {}, **more)
            finally:
                for _ in range(3):  # so that background calls are sent too
                    await asyncio.sleep(0)

        return asyncio.run(act())

    def push(self, content: bytes, reply_to: str = "") -> CallReply:
        """Have AT push a reply."""
        metadata = Metadata(src_node_id=AT, reply_to_message_id=reply_to)
        message = Message(metadata=metadata)
        request = PushMessagesRequest(node=Node(node_id=AT), messages_list=[message])
        return self.call("AT", "PushMessages", request, content=content)

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


REQUESTS: dict[str, Callable[[int], Any]] = {
    "ActivateNode": lambda node: ActivateNodeRequest(public_key=KEYS["AT" if node == AT else "BE"]),
    "DeactivateNode": lambda node: DeactivateNodeRequest(node_id=node),
    "SendNodeHeartbeat": lambda node: SendNodeHeartbeatRequest(node=Node(node_id=node)),
    "PullMessages": lambda node: PullMessagesRequest(node=Node(node_id=node)),
    "PushMessages": lambda node: PushMessagesRequest(
        node=Node(node_id=node), messages_list=[Message(metadata=Metadata(src_node_id=node))]
    ),
}


def there(content: bytes) -> bytes:
    response = PullObjectResponse(object_found=True, object_available=True, object_content=content)
    return bytes(response.SerializeToString())


LATE = bytes(PullObjectResponse(object_found=True).SerializeToString())
GONE = bytes(PullObjectResponse().SerializeToString())
CONTENT = b"a reply"
NAME = hashlib.sha256(CONTENT).hexdigest()
