"""The session of one country's node at the relay, and what the relay answers to its calls."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from server.exchange.fencing import Rank
from server.flower.fleet_messages import Metadata


class CallReply(NamedTuple):
    """The SuperLink's status and body, and the object of a message that was pulled."""

    status: int
    body: bytes
    object: bytes = b""
    disputed: bool = False


class Delivered(NamedTuple):
    """A message that was sent to a node, and the Flower run that it belongs to."""

    reply: CallReply
    run_id: int


MOST_UNANSWERED = 16
"""How many messages a node may leave unanswered; a reply to an older one is not taken."""
SIGN_INS_AT_ONCE, SIGN_IN_SECONDS, OTHERS_SECONDS = 20, 2.0, 20.0
"""How often a node may sign in: 20 times at once, and then once in two seconds. After each sign-in
the server app sends its message again. Those that do not act have an allowance beside that of the
acting one, and those that call from its address one more: 20 times at once, and then once in 20
seconds."""


@dataclass
class Allowance:
    """How many sign-ins are left of those that are allowed in a row."""

    seconds: float
    """After how long there is one more."""
    left: float = SIGN_INS_AT_ONCE
    at: float = 0.0

    def allows(self, now: float) -> bool:
        """Return whether a sign-in is allowed now, and count it if it is."""
        self.left = min(SIGN_INS_AT_ONCE, self.left + (now - self.at) / self.seconds)
        self.at = now
        allowed = self.left >= 1
        self.left -= allowed
        return allowed


def _allowances() -> dict[Rank, Allowance]:
    """Return the allowances of all ranks but one: of a session that acted before, see below."""
    others = {rank: Allowance(OTHERS_SECONDS) for rank in (Rank.LIKELY, Rank.OTHER)}
    return others | {Rank.ACTS: Allowance(SIGN_IN_SECONDS)}


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
    unanswered: dict[str, Metadata] = field(default_factory=dict)
    """What the messages say about themselves that the node was given since its last sign-in and has
    not answered. Everything else that a reply says about itself is taken from here."""
    answers: dict[str, str] = field(default_factory=dict)
    """The name of the reply to each of the last answered messages."""
    pulling: asyncio.Task[CallReply] | None = None
    allowances: dict[Rank, Allowance] = field(default_factory=_allowances)

    def may_sign_in(self, rank: Rank, now: float) -> bool:
        """Return whether a session of this rank may sign in now, and count it if it may.

        One that acted before always may: at its second sign-in it acts again, so copies that acted
        after a running node use up nothing that the node needs.
        """
        return rank is Rank.FORMER or self.allowances[rank].allows(now)

    def note_delivery(self, metadata: Metadata) -> None:
        """Note that the node was given a message, which it may answer once."""
        self.unanswered[metadata.message_id] = metadata
        _forget_oldest(self.unanswered)

    def note_answer(self, message: str, reply: str) -> None:
        """Note that a message was answered, by the reply with this name."""
        self.unanswered.pop(message, None)
        self.answers[message] = reply
        _forget_oldest(self.answers)

    def expect(self) -> None:
        """Note that there is a message to pull."""
        self.expected += 1
        self.arrived.set()


def _forget_oldest(notes: dict[str, Any]) -> None:
    while len(notes) > MOST_UNANSWERED:
        del notes[next(iter(notes))]
