"""Carries frames between the round logic and the countries as Flower messages.

It pushes all at once, each message with its one object, and tells the relay; the relay tells when
all have replied, and only then are replies looked for. (Flower's grid would take three objects a
message, wait a second for each that is late, and sleep three between looks.) A node that signs in
again while it is waited for is asked again at once, with the same bytes. One that is slow is waited
for; one that is gone is not for long, and nothing is pushed for it.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from flwr.serverapp import Grid

from server.flower.message_queue import MessageQueue, Received
from server.flower.presence import Presence, PresenceUpdate

RECHECK_SECONDS = 2.0
"""How often replies are looked for although not every country is known to have replied."""
RETRY_SECONDS = 0.2
"""How long a message waits that Flower did not take, or had an error for."""
ABSENT_SECONDS = 30.0
"""A node that is there is heard of every 20 s at least; one silent for longer is gone."""

_log = logging.getLogger("pratique.run")


class Carrier(Protocol):
    """Sends one frame to each of some countries and brings back what they reply."""

    def exchange(self, frames: Mapping[str, bytes], seconds: float) -> Mapping[str, bytes]:
        """Return replies by country; a country that did not reply in time is not in it."""


class RelayClient(Protocol):
    """What the carrier asks of whoever runs the relay."""

    def announce(self, countries: Sequence[str]) -> None:
        """Say that a message was pushed for each of these."""

    def news(self, count: int, seconds: float) -> PresenceUpdate:
        """Return who is there once more than `count` things happened, or after `seconds`."""


class FlowerCarrier:
    """A Carrier over Flower's grid."""

    def __init__(self, grid: Grid, relay: RelayClient) -> None:
        self._queue, self._relay = MessageQueue(grid), relay
        self._news, self._began = relay.news(-1, 0), time.monotonic()
        self._late: dict[str, str] = {}

    def exchange(self, frames: Mapping[str, bytes], seconds: float) -> Mapping[str, bytes]:
        """Return replies by country; late ones and ones without a frame are not in it.

        A country whose node is gone for ABSENT_SECONDS is given up before `seconds` are over, and
        at once where it was gone before: as soon as the others have replied.
        """
        asked, began = _Asked(frames, self._late), time.monotonic()
        self._news = self._relay.news(-1, 0)
        self._send(asked)
        while asked.waiting and (waited := time.monotonic() - began) < seconds:
            self._wait(asked, min(seconds - waited, RECHECK_SECONDS))
            self._hear(asked)
            asked.give_up(self._gone(asked.waiting))
            self._send(asked)
            if asked.due(self._news.present):  # Flower did not take them yet
                time.sleep(RETRY_SECONDS)
        asked.give_up(asked.waiting)
        return asked.replies

    def _hear(self, asked: "_Asked") -> None:
        """Take the replies that are there; after an error, wait a moment before asking again."""
        found = self._queue.pull([*asked.names, *self._late])
        for received in found:
            if country := self._late.pop(received.reply_to, ""):
                _log.info("reply not used, for it came too late", extra={"country": country})
            else:
                asked.hear(received)
        if any(received.failed for received in found):
            time.sleep(RETRY_SECONDS)

    def _gone(self, countries: Iterable[str]) -> set[str]:
        """Return whose nodes nothing was heard of for too long; unseated ones', since we began."""
        silent = {country: one.silent for country, one in self._news.present.items()}
        never = time.monotonic() - self._began
        return {one for one in countries if silent.get(one, never) > ABSENT_SECONDS}

    def _send(self, asked: "_Asked") -> None:
        """Ask those who are there and were not asked since they signed in."""
        present, gone = self._news.present, self._gone(asked.waiting)
        due = [country for country in asked.due(present) if country not in gone]
        if not due:
            return
        names = self._queue.push([(present[one].node, asked.waiting[one]) for one in due])
        for country, name in zip(due, names, strict=True):
            asked.note(country, name, present[country].session)
        self._relay.announce(due)

    def _wait(self, asked: "_Asked", seconds: float) -> None:
        """Return once all that are there have replied anew, or somebody is to be asked."""
        deadline, before = time.monotonic() + seconds, self._news.present
        while (left := deadline - time.monotonic()) > 0:
            present, gone = self._news.present, self._gone(asked.waiting)
            there = [one for one in asked.waiting if one not in gone]
            if set(asked.due(present)) - gone or all(_replied(c, before, present) for c in there):
                return
            self._news = self._relay.news(self._news.count, left)


def _replied(country: str, before: Mapping[str, Presence], present: Mapping[str, Presence]) -> bool:
    """Whether a country has replied more often; with a new seat it counts from nought."""
    session, earlier = present.get(country), before.get(country)
    if session is None:
        return False
    same = earlier is not None and earlier.node == session.node
    return session.replies > (earlier.replies if earlier and same else 0)


class _Asked:
    """Frames on their way: who is waited for, under which messages, since which sign-in.

    Messages of whoever is given up go to `late`.
    """

    def __init__(self, frames: Mapping[str, bytes], late: dict[str, str]) -> None:
        self.waiting, self.replies = dict(frames), dict[str, bytes]()
        self.names, self._late = dict[str, str](), late
        self._sessions: dict[str, tuple[int, int]] = {}

    def due(self, present: Mapping[str, Presence]) -> list[str]:
        """Return who is waited for, is there, and has signed in since it was asked, if it was."""
        there = [one for one in self.waiting if one in present and present[one].sign_ins]
        return [one for one in there if self._sessions.get(one) != present[one].session]

    def note(self, country: str, name: str | None, session: tuple[int, int]) -> None:
        """Note the message that asks a country; one that Flower did not take has no name."""
        if name:
            self.names[name], self._sessions[country] = country, session

    def hear(self, received: Received) -> None:
        """Take a reply; only the first of a country counts, with a frame or without.

        An error is Flower's own word that the node was away: it is asked again.
        """
        country = self.names.pop(received.reply_to, "")
        if received.failed:
            self._sessions.pop(country, None)
            return
        if country in self.waiting and received.frame is not None:
            self.replies[country] = received.frame
        self.give_up([country])

    def give_up(self, countries: Iterable[str]) -> None:
        """Wait no longer for these."""
        gone = set(countries)
        self.waiting = {one: frame for one, frame in self.waiting.items() if one not in gone}
        self._late |= {name: one for name, one in self.names.items() if one in gone}
        self.names = {name: one for name, one in self.names.items() if one not in gone}
