"""How a Flower message contains a frame, and which Fleet calls may pass the exchange.

A frame is one signed message of this project; to Flower it is bytes under a name. A Flower message
has one object, a ConfigRecord with the frame in it, and that object's hash is its name. So one call
transfers all of it. Flower's own nested objects (message, dict, record) would need three calls.
"""

import re

RECORD = "pratique"
"""Name of the one ConfigRecord in a message's content, as an app sees it."""
FRAME = "frame"
"""Name of the bytes in that record."""
NONCE, NONCE_BYTES = "nonce", 16
"""Random bytes beside the frame, so that the same frame sent twice is two messages to Flower."""
MESSAGE_TYPE = "query"
"""Flower's message type; ours is inside the frame."""
MAX_FRAME = 48 * 2**20
"""Largest frame, in bytes: enough for 10^6 values in 64-bit words and the rest."""

FLEET_CALLS = {
    "ActivateNode": "activate-node",
    "DeactivateNode": "deactivate-node",
    "SendNodeHeartbeat": "send-node-heartbeat",
    "PullMessages": "pull-messages",
    "PushMessages": "push-messages",
}
"""The Fleet calls a node needs, each with its path on the SuperLink; no other is relayed."""
OBJECT_CALLS = {
    "PullObject": "pull-object",
    "ConfirmMessageReceived": "confirm-message-received",
    "PushObject": "push-object",
}
"""Calls that the exchange makes for a node, from the content of the node's calls; the node never
makes them."""
HEADER_PREFIX = "flwr-"
"""Headers of the Flower client that the SuperLink checks."""
LARGEST_BODY = 4 * 2**10
"""The largest body of a Fleet call or answer, in bytes: a message without its object."""
SESSION_BYTES = 16
"""Random bytes by which a running node is known to the exchange."""
IDENTITY_IN_USE = 409
"""Status of a call by a copy of a node that is connected."""
SESSION_ENDED = 410
"""Status of a call in a session that is over, and of an answer to a message that is gone."""
STILL_CONNECTED = 425
"""Status of a sign-in while the node's former session may still be connected."""
SIGNED_IN_TOO_OFTEN = 429
"""Status of a sign-in that follows too many others."""
HEARTBEAT_SECONDS = 5.0
"""How long the exchange holds a heartbeat before it answers. So each connected node has a call in
progress at any time, and the exchange notices at once if the node's process ends."""
_GROUP = re.compile(r"largest-reply-([0-9]{1,9})")
LONG_POLL_SECONDS = 20.0
"""How long the exchange waits for a message on the node's behalf."""


def group_of(largest_reply: int) -> str:
    """Return the Flower group of a message: the size of the largest frame that may answer it."""
    return f"largest-reply-{largest_reply}"


def largest_reply(group: str) -> int:
    """Return the size of the largest frame that may answer a message of this Flower group."""
    match = _GROUP.fullmatch(group)
    return min(int(match[1]), MAX_FRAME) if match else MAX_FRAME
