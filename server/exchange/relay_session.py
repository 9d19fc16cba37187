"""The session of one country's node at the relay, and what the relay answers to its calls."""

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple


class CallReply(NamedTuple):
    """The SuperLink's status and body, and the object of a message that was pulled."""

    status: int
    body: bytes
    object: bytes = b""


class Delivered(NamedTuple):
    """A message that was sent to a node, and the Flower run that it belongs to."""

    reply: CallReply
    run_id: int


@dataclass
class NodeSession:
    """The registration of one country's node at the SuperLink, and its state at the relay."""

    country: str
    node_id: int
    public_key: bytes
    """The key registered for node authentication, in Flower's byte form."""
    online: bool = False
    sign_ins: int = 0
    replies: int = 0
    last_call: float = 0.0
    """When the node last called, on the clock of `time.monotonic`."""
    expected: int = 1
    """Messages to pull: those announced, and one that may have come before any announcement."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    unconfirmed: dict[str, Delivered] = field(default_factory=dict)
    """Messages by name, until the node confirms them: the SuperLink sends a message only once, and
    the answer can be lost on its way to the node."""
    pulling: asyncio.Task[CallReply] | None = None

    def expect(self) -> None:
        """Note that there is a message to pull."""
        self.expected += 1
        self.arrived.set()
