"""Says in words why the exchange or the SuperLink refused a Fleet call with a status."""

from collections.abc import Callable
from typing import TypeVar

import httpx

from client.state.incarnation import IF_COPIED
from protocols.wire.channel import LinkFault
from protocols.wire.flower_frame import (
    IDENTITY_IN_USE,
    SESSION_ENDED,
    SIGNED_IN_TOO_OFTEN,
    STILL_CONNECTED,
)

T = TypeVar("T")
STILL_ONLINE = int(httpx.codes.PRECONDITION_FAILED)


class StatusFault(LinkFault):
    """The exchange or the SuperLink refused a call with a status."""


def with_status_faults(call: Callable[[], T]) -> T:
    """Return the call's result. Raises StatusFault if the SuperLink answers with an error."""
    try:
        return call()
    except httpx.HTTPStatusError as error:
        raise status_fault(error.response.status_code, error.response.text[:200]) from error


_TEXTS = {
    STILL_ONLINE: (
        "The coordinator's SuperLink does not admit this node yet",
        "it keeps this node's last session for up to a minute, or does not know its key",
        "if it lasts longer, ask the coordinator whether this node is admitted",
    ),
    STILL_CONNECTED: (
        "The coordinator may still be connected with this node's former session",
        "that session called within the last seconds, and did not sign off",
        "wait; if it lasts longer, look for a second machine with a copy of this node's folder",
    ),
    IDENTITY_IN_USE: (
        "Another machine is connected with this node's identity",
        "it runs from a copy of this node's folder, or this folder is the copy",
        IF_COPIED,
    ),
    SESSION_ENDED: (
        "This node's session at the coordinator has ended",
        "the coordinator or its SuperLink was restarted, or another session of this node began",
        "do nothing; the node signs in again by itself",
    ),
    SIGNED_IN_TOO_OFTEN: (
        "This node signed in too often",
        (
            "after 20 sign-ins the coordinator admits a node only every two seconds, and one that "
            "was restarted every 20 seconds"
        ),
        "do nothing; the node tries again by itself. If it lasts, check the link",
    ),
}


def status_fault(status: int, text: str = "") -> StatusFault:
    """Return the fault for a status of HTTP or of the exchange."""
    other = (
        "The coordinator's SuperLink refused a call",
        f"status {status}: {text}",
        "ask the coordinator whether this node is admitted",
    )
    what, why, fix = _TEXTS.get(status, other)
    return StatusFault(what, why=why, fix=fix)
