"""The points between two steps of what a node does before a reply leaves, by name.

The node calls `reach` at each of them, and that does nothing. A test gives `Node` another callable
and lets the process die there: no setting, flag or environment variable can.
"""

from collections.abc import Callable
from enum import StrEnum

FailpointHook = Callable[[str], None]
"""Called with the point that was reached."""


class Failpoint(StrEnum):
    """Every point at which something has been done and the next thing has not.

    Up to `..._CHARGED`, `..._KEPT` of the same place nothing of a transaction under way is durable.
    """

    FLOOR_PREPARED = "floor/prepared"
    FLOOR_RESERVED = "floor/reserved"
    FLOOR_CHARGE_LOGGED = "floor/charge-logged"
    FLOOR_CHARGED = "floor/charged"
    FLOOR_COUNTED = "floor/counted"
    FLOOR_NOISED = "floor/noised"
    FLOOR_WRITTEN = "floor/written"
    FLOOR_KEPT = "floor/kept"
    FLOOR_PASSED = "floor/passed"
    DOOR_PERMITTED = "door/permitted"
    DOOR_PREPARED = "door/prepared"
    DOOR_RESERVED = "door/reserved"
    DOOR_CHARGE_LOGGED = "door/charge-logged"
    DOOR_CHARGED = "door/charged"
    DOOR_SUMMED = "door/summed"
    DOOR_NOISED = "door/noised"
    OUTBOX_MADE = "outbox/made"
    OUTBOX_JOURNALLED = "outbox/journalled"
    OUTBOX_ADVANCED = "outbox/advanced"
    OUTBOX_LOGGED = "outbox/logged"
    OUTBOX_ENDED = "outbox/ended"
    OUTBOX_KEPT = "outbox/kept"
    HEAD_MOVED = "head/moved"


def no_failpoint(step: str) -> None:
    """Go on."""
