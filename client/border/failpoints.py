"""The named points between two steps of a reply, at which a test can stop the process.

The node calls its `failpoint` hook at each point, and the hook does nothing. A test passes another
hook and ends the process there. No setting, flag or environment variable can do that.
"""

from collections.abc import Callable
from enum import StrEnum

FailpointHook = Callable[[str], None]
"""Called with the name of the point that was reached."""


class Failpoint(StrEnum):
    """The points between two steps.

    The writes of a transaction are durable only when `..._CHARGED` or `..._KEPT` of its part is
    reached.
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
    """Do nothing."""
