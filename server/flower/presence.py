"""Whether a country's node is there and has replied: the relay knows, the server app asks.

The relay tells what happens, in the exchange's loop; whoever waits for it does so in another
thread, and is woken at once instead of looking again and again.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from threading import Condition
from typing import Any, Self


@dataclass(frozen=True)
class Presence:
    """A seated node: its Flower id, how often it signed in, and for how many seconds it was silent.

    A node that signs in again has forgotten what it was asked, unless it had answered. `replies`
    counts what it has answered since it has its seat.
    """

    node: int
    sign_ins: int
    silent: float
    replies: int = 0

    @property
    def session(self) -> tuple[int, int]:
        """What differs after each sign-in, and each time the SuperLink was started again."""
        return self.node, self.sign_ins


@dataclass(frozen=True)
class PresenceUpdate:
    """Who is there, after `count` replies and sign-ins of all countries together."""

    count: int
    present: Mapping[str, Presence]

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return {"count": self.count, "present": {c: asdict(p) for c, p in self.present.items()}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return what `to_json` gave."""
        return cls(int(value["count"]), {c: Presence(**p) for c, p in value["present"].items()})


class PresenceChanges:
    """A count that others wait for. Safe among threads."""

    def __init__(self) -> None:
        self._changed, self._count = Condition(), 0

    def note(self) -> None:
        """Count one more, and wake whoever waits."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def after(self, count: int, seconds: float) -> int:
        """Return the count once it is larger than `count`, or when `seconds` have passed."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._count <= count and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._count
