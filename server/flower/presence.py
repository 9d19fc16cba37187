"""The presence of the countries' nodes: the relay notes sign-ins and replies, the server app waits.

The relay notes changes in the exchange's event loop. A caller waits for them in another thread,
and is woken at once instead of polling.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from threading import Condition
from typing import Any, Self


@dataclass(frozen=True)
class Presence:
    """A node: its Flower id, its number of sign-ins, and the seconds since its last call.

    A node that signs in again has forgotten the requests that it had not answered. `replies`
    counts its answers since it got this Flower id.
    """

    node: int
    sign_ins: int
    silent: float
    replies: int = 0

    @property
    def session(self) -> tuple[int, int]:
        """A pair that changes at each sign-in and at each restart of the SuperLink."""
        return self.node, self.sign_ins


@dataclass(frozen=True)
class PresenceUpdate:
    """The presence of each node, after `count` replies and sign-ins of all nodes together."""

    count: int
    present: Mapping[str, Presence]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {"count": self.count, "present": {c: asdict(p) for c, p in self.present.items()}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the update that `to_json` was called on."""
        return cls(int(value["count"]), {c: Presence(**p) for c, p in value["present"].items()})


class PresenceChanges:
    """A count of changes that callers wait for. Safe to use from several threads."""

    def __init__(self) -> None:
        self._changed, self._count = Condition(), 0

    def note(self) -> None:
        """Count one more change and wake all waiting callers."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def after(self, count: int, seconds: float) -> int:
        """Return the count once it is larger than `count`, or after `seconds`."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._count <= count and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._count
