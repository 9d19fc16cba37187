"""Carries frames between the round logic and the countries as Flower messages.

It pushes all at once, tells the relay, and looks for replies without the three-second sleeps of
`Grid.send_and_receive`. Works on one Flower internal (how soon a reply's objects are asked for
again); flwr is pinned to 1.41.
"""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.superlink.grid import http_grid

from protocols.carrier import FRAME, MAX_FRAME, MESSAGE_TYPE, RECORD

POLL_SECONDS = 0.02
PULL_BACKOFF_SECONDS = 0.02
MESSAGE_LIFETIME = 3600.0


class Carrier(Protocol):
    """Sends one frame to each of some countries and brings back what they reply."""

    def exchange(self, frames: Mapping[str, bytes], seconds: float) -> Mapping[str, bytes]:
        """Return replies by country; a country that did not reply in time is not in it."""


class FlowerCarrier:
    """A Carrier over Flower's grid."""

    def __init__(self, grid: Grid, nodes: Mapping[str, int], announce: Callable[[], None]) -> None:
        """`nodes` are Flower node ids by country; `announce` tells the relay to look."""
        self._grid, self._nodes, self._announce = grid, nodes, announce

    def exchange(self, frames: Mapping[str, bytes], seconds: float) -> Mapping[str, bytes]:
        """Return replies by country; late ones and ones without a frame are not in it."""
        waiting = self._send(frames)
        replies: dict[str, bytes] = {}
        deadline = time.monotonic() + seconds
        while waiting and time.monotonic() < deadline:
            for message in self._grid.pull_messages(list(waiting)):
                country = waiting.pop(message.metadata.reply_to_message_id, None)
                if country is not None and (frame := _frame(message)) is not None:
                    replies[country] = frame
            if waiting:
                time.sleep(POLL_SECONDS)
        return replies

    def _send(self, frames: Mapping[str, bytes]) -> dict[str, str]:
        countries = list(frames)
        messages = [self._message(country, frames[country]) for country in countries]
        sent = list(self._grid.push_messages(messages))
        self._announce()
        return {name: country for name, country in zip(sent, countries, strict=True) if name}

    def _message(self, country: str, frame: bytes) -> Message:
        content = RecordDict({RECORD: ConfigRecord({FRAME: frame})})
        return Message(content, self._nodes[country], MESSAGE_TYPE, ttl=MESSAGE_LIFETIME)


def _frame(message: Message) -> bytes | None:
    if message.has_error() or not message.has_content():
        return None
    record = message.content.get(RECORD)
    frame = record.get(FRAME) if isinstance(record, ConfigRecord) else None
    return frame if isinstance(frame, bytes) and len(frame) <= MAX_FRAME else None


def quick_pulls() -> None:
    """Ask for a reply's objects again after 20 ms instead of a second."""
    http_grid.pull_objects = functools.partial(
        http_grid.pull_objects, initial_backoff=PULL_BACKOFF_SECONDS
    )
