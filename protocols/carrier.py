"""How a frame rides in a Flower message, and which Fleet calls may cross the exchange.

A frame is one signed message of the project's own; to Flower it is bytes under two names.
"""

RECORD = "pratique"
"""Name of the one ConfigRecord in a message's content."""
FRAME = "frame"
"""Name of the bytes in that record."""
MESSAGE_TYPE = "query"
"""Flower's message type; ours is inside the frame."""
MAX_FRAME = 48 * 2**20
"""Largest frame, in bytes: 10^6 values in 64-bit words with room for the rest."""

FLEET_CALLS = {
    "ActivateNode": "activate-node",
    "DeactivateNode": "deactivate-node",
    "SendNodeHeartbeat": "send-node-heartbeat",
    "PullMessages": "pull-messages",
    "PullObject": "pull-object",
    "ConfirmMessageReceived": "confirm-message-received",
    "PushMessages": "push-messages",
    "PushObject": "push-object",
}
"""The Fleet calls a node needs, each with its path on the SuperLink; no other is carried."""
HEADER_PREFIX = "flwr-"
"""Headers of the Flower client that the SuperLink checks."""
LONG_POLL_SECONDS = 20.0
"""How long the exchange waits for a message on the node's behalf."""
