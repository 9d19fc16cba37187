"""Carries frames between the round logic and the countries as Flower messages.

It pushes all at once, tells the relay, and looks for replies without the three-second sleeps of
`Grid.send_and_receive`. A node that signs in again while it is waited for is asked again at once,
with the same bytes; one that is gone is not waited for long, one that is slow is. Works on one
Flower internal (how soon a reply's objects are asked for again); flwr is pinned to 1.41.
"""

import functools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.superlink.grid import http_grid

from protocols.carrier import FRAME, MAX_FRAME, MESSAGE_TYPE, RECORD
from server.presence import Presence

POLL_SECONDS = 0.02
PULL_BACKOFF_SECONDS = 0.02
MESSAGE_LIFETIME = 3600.0
LOOK_SECONDS = 0.5
"""How often it is asked who is there, while somebody is waited for."""
ABSENT_SECONDS = 30.0
"""A node that is there is heard of every 20 s at least; one silent for longer is gone."""


class Carrier(Protocol):
    """Sends one frame to each of some countries and brings back what they reply."""

    def exchange(self, frames: Mapping[str, bytes], seconds: float) -> Mapping[str, bytes]:
        """Return replies by country; a country that did not reply in time is not in it."""


class FlowerCarrier:
    """A Carrier over Flower's grid."""

    def __init__(
        self, grid: Grid, look: Callable[[], Mapping[str, Presence]], announce: Callable[[], None]
    ) -> None:
        """`look` says which countries' nodes are there; `announce` tells the relay to look."""
        self._grid, self._look, self._announce = grid, look, announce
        self._present = look()

    def exchange(self, frames: Mapping[str, bytes], seconds: float) -> Mapping[str, bytes]:
        """Return replies by country; late ones and ones without a frame are not in it.

        A country whose node is gone for ABSENT_SECONDS is given up before `seconds` are over.
        """
        asked = _Asked(frames)
        began = looked = time.monotonic()
        self._send(asked)
        while asked.waiting and (now := time.monotonic()) < began + seconds:
            for message in self._grid.pull_messages(list(asked.names)):
                asked.hear(message)
            if asked.waiting and now - looked >= LOOK_SECONDS:
                looked, self._present = now, self._look()
                asked.give_up(self._absent(asked.waiting, now - began))
                self._send(asked)
            if asked.waiting:
                time.sleep(POLL_SECONDS)
        return asked.replies

    def _absent(self, countries: Iterable[str], waited: float) -> list[str]:
        """Return whose nodes nothing was heard of for too long; an unseated one's, since we ask."""
        silent = {country: one.silent for country, one in self._present.items()}
        return [one for one in countries if silent.get(one, waited) > ABSENT_SECONDS]

    def _send(self, asked: "_Asked") -> None:
        """Ask those who were not asked since they signed in."""
        due = asked.due(self._present)
        if not due:
            return
        messages = [self._message(country, asked.waiting[country]) for country in due]
        for country, name in zip(due, self._grid.push_messages(messages), strict=True):
            asked.note(country, name, self._present[country].session)
        self._announce()

    def _message(self, country: str, frame: bytes) -> Message:
        content = RecordDict({RECORD: ConfigRecord({FRAME: frame})})
        return Message(content, self._present[country].node, MESSAGE_TYPE, ttl=MESSAGE_LIFETIME)


class _Asked:
    """Frames on their way: who is waited for, under which messages, since which sign-in."""

    def __init__(self, frames: Mapping[str, bytes]) -> None:
        self.waiting, self.replies = dict(frames), dict[str, bytes]()
        self.names: dict[str, str] = {}
        self._sessions: dict[str, tuple[int, int]] = {}

    def due(self, present: Mapping[str, Presence]) -> list[str]:
        """Return who is waited for, is there, and has signed in since it was asked, if it was."""
        there = [country for country in self.waiting if country in present]
        return [one for one in there if self._sessions.get(one) != present[one].session]

    def note(self, country: str, name: str | None, session: tuple[int, int]) -> None:
        """Note the message that asks a country; one that Flower did not take has no name."""
        if name:
            self.names[name], self._sessions[country] = country, session

    def hear(self, message: Message) -> None:
        """Take a reply; only the first of a country counts, with a frame or without.

        An error is Flower's own word that the node was away: it is asked again.
        """
        country = self.names.pop(message.metadata.reply_to_message_id, "")
        if message.has_error():
            self._sessions.pop(country, None)
            return
        if country in self.waiting and (frame := _frame(message)) is not None:
            self.replies[country] = frame
        self.give_up([country])

    def give_up(self, countries: Iterable[str]) -> None:
        """Wait no longer for these."""
        gone = set(countries)
        self.waiting = {one: frame for one, frame in self.waiting.items() if one not in gone}
        self.names = {name: one for name, one in self.names.items() if one not in gone}


def _frame(message: Message) -> bytes | None:
    if not message.has_content():
        return None
    record = message.content.get(RECORD)
    frame = record.get(FRAME) if isinstance(record, ConfigRecord) else None
    return frame if isinstance(frame, bytes) and len(frame) <= MAX_FRAME else None


def quick_pulls() -> None:
    """Ask for a reply's objects again after 20 ms instead of a second."""
    http_grid.pull_objects = functools.partial(
        http_grid.pull_objects, initial_backoff=PULL_BACKOFF_SECONDS
    )
