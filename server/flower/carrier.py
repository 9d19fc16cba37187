"""Carries frames between the round logic and the countries, as Flower messages.

It pushes all messages at once, each as one object, and notifies the relay. The relay notifies it
when all countries have replied; only then are the replies pulled. (Flower's grid would use three
objects for a message, wait a second for each that is late, and sleep three seconds between pulls.)
A node that signs in again before it has replied gets the same bytes again at once. A slow node is
waited for. A node that is gone is waited for only for a short time, and nothing is pushed for it.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from flwr.serverapp import Grid

from server.flower.message_queue import MessageQueue, Received
from server.flower.presence import Presence, PresenceUpdate

RECHECK_SECONDS = 2.0
"""How often replies are pulled while not every country is known to have replied."""
RETRY_SECONDS = 0.2
"""The pause before a message is sent again that Flower refused or answered with an error."""
ABSENT_SECONDS = 30.0
"""A connected node calls every 20 s at least; a node that is silent for longer is gone."""

ANY_COUNT = -1
"""Fewer changes than there can be, so that the relay answers at once."""

_log = logging.getLogger("pratique.run")


class Carrier(Protocol):
    """Sends a frame to each of some countries and returns their replies."""

    def exchange(
        self, frames: Mapping[str, bytes], seconds: float, largest_reply: int
    ) -> Mapping[str, bytes]:
        """Return the replies by country, without the countries that did not reply in time.

        No reply is larger than `largest_reply` bytes.
        """


class RelayClient(Protocol):
    """The carrier's requests to the process that runs the relay."""

    def announce(self, countries: Sequence[str]) -> None:
        """Notify the relay that a message was pushed for each of these countries."""

    def presence_update(self, count: int, seconds: float) -> PresenceUpdate:
        """Return the presences once there are more than `count` changes, or after `seconds`."""


class FlowerCarrier:
    """A Carrier over Flower's grid."""

    def __init__(self, grid: Grid, relay: RelayClient) -> None:
        self._queue, self._relay = MessageQueue(grid), relay
        self._presence, self._began = self._current_presence(), time.monotonic()
        self._late: dict[str, str] = {}
        """The country of each message that is no longer waited for."""

    def exchange(
        self, frames: Mapping[str, bytes], seconds: float, largest_reply: int
    ) -> Mapping[str, bytes]:
        """Return the replies by country, without those that are late or have no frame.

        A country whose node is gone for ABSENT_SECONDS is not waited for until `seconds` are over.
        If it was gone before, the exchange ends as soon as the others have replied.
        """
        pending = _PendingReplies(frames, self._late, largest_reply)
        began = time.monotonic()
        self._presence = self._current_presence()
        self._send(pending)
        while pending.frames and (waited := time.monotonic() - began) < seconds:
            self._wait(pending, min(seconds - waited, RECHECK_SECONDS))
            self._pull(pending)
            pending.abandon(self._gone(pending.frames))
            self._send(pending)
            if pending.to_send(self._presence.present):  # Flower refused some of them
                time.sleep(RETRY_SECONDS)
        pending.abandon(pending.frames)
        return pending.replies

    def _current_presence(self) -> PresenceUpdate:
        return self._relay.presence_update(ANY_COUNT, 0)

    def _pull(self, pending: "_PendingReplies") -> None:
        """Receive the replies that have arrived; after an error, pause before the next attempt."""
        pulled = self._queue.pull([*pending.names, *self._late])
        for received in pulled:
            if country := self._late.pop(received.reply_to, ""):
                _log.info("reply not used, for it came too late", extra={"country": country})
            else:
                pending.receive(received)
        if any(received.failed for received in pulled):
            time.sleep(RETRY_SECONDS)

    def _gone(self, countries: Iterable[str]) -> set[str]:
        """Return the countries whose nodes are silent for too long.

        A node that never registered counts as silent since this carrier began.
        """
        silent = {country: node.silent for country, node in self._presence.present.items()}
        never = time.monotonic() - self._began
        return {country for country in countries if silent.get(country, never) > ABSENT_SECONDS}

    def _send(self, pending: "_PendingReplies") -> None:
        """Send the frames of connected countries that got none since their last sign-in."""
        present, gone = self._presence.present, self._gone(pending.frames)
        countries = [country for country in pending.to_send(present) if country not in gone]
        if not countries:
            return
        names = self._queue.push(
            [(present[country].node, pending.frames[country]) for country in countries],
            pending.largest_reply,
        )
        for country, name in zip(countries, names, strict=True):
            self._queue.delete(pending.names_of(country))  # its node gets the new copy instead
            pending.note_sent(country, name, present[country].session)
        self._relay.announce(countries)

    def _wait(self, pending: "_PendingReplies", seconds: float) -> None:
        """Return once all connected countries have replied since, or a frame must be sent."""
        deadline, before = time.monotonic() + seconds, self._presence.present
        while (remaining := deadline - time.monotonic()) > 0:
            present, gone = self._presence.present, self._gone(pending.frames)
            waited_for = [country for country in pending.frames if country not in gone]
            replied = all(_has_replied(country, before, present) for country in waited_for)
            if replied or set(pending.to_send(present)) - gone:
                return
            self._presence = self._relay.presence_update(self._presence.count, remaining)


def _has_replied(
    country: str, before: Mapping[str, Presence], present: Mapping[str, Presence]
) -> bool:
    """Return whether a country has replied since `before`; a new Flower id counts from zero."""
    node, earlier = present.get(country), before.get(country)
    if node is None:
        return False
    same = earlier is not None and earlier.node == node.node
    return node.replies > (earlier.replies if earlier and same else 0)


class _PendingReplies:
    """The frames of one exchange: which countries have not replied, under which message names.

    Messages of abandoned countries go to `late`.
    """

    def __init__(
        self, frames: Mapping[str, bytes], late: dict[str, str], largest_reply: int
    ) -> None:
        self.frames, self.replies = dict(frames), dict[str, bytes]()
        self.largest_reply = largest_reply
        self.names, self._late = dict[str, str](), late
        self._sessions: dict[str, tuple[int, int]] = {}

    def to_send(self, present: Mapping[str, Presence]) -> list[str]:
        """Return the signed-in countries to which no frame was sent since their last sign-in."""
        signed_in = [
            country for country in self.frames if country in present and present[country].sign_ins
        ]
        return [
            country
            for country in signed_in
            if self._sessions.get(country) != present[country].session
        ]

    def names_of(self, country: str) -> list[str]:
        """Return the names of the messages that were sent to a country and are still waited for."""
        return [name for name, receiver in self.names.items() if receiver == country]

    def note_sent(self, country: str, name: str | None, session: tuple[int, int]) -> None:
        """Note a message to a country; a message that Flower refused has no name."""
        if name:
            self.names[name], self._sessions[country] = country, session

    def receive(self, received: Received) -> None:
        """Receive a reply; only the first reply of a country counts, with a frame or without.

        An error comes from Flower and means that the node was away: its frame is sent again.
        """
        country = self.names.pop(received.reply_to, "")
        if received.failed:
            self._sessions.pop(country, None)
            return
        if country in self.frames and received.frame is not None:
            self.replies[country] = received.frame
        self.abandon([country])

    def abandon(self, countries: Iterable[str]) -> None:
        """Stop waiting for these countries."""
        abandoned = set(countries)
        self.frames = {
            country: frame for country, frame in self.frames.items() if country not in abandoned
        }
        self._late |= {
            name: country for name, country in self.names.items() if country in abandoned
        }
        self.names = {
            name: country for name, country in self.names.items() if country not in abandoned
        }
