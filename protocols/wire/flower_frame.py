"""How a frame rides in a Flower message, and which Fleet calls may cross the exchange.

A frame is one signed message of the project's own; to Flower it is bytes under a name. A message
carries one object, a ConfigRecord with the frame in it, and is named by that object's hash: so one
call brings all of it, where Flower's own nesting of message, dict and record would take three.
"""

RECORD = "pratique"
"""Name of the one ConfigRecord in a message's content, as an app sees it."""
FRAME = "frame"
"""Name of the bytes in that record."""
NONCE, NONCE_BYTES = "nonce", 16
"""Random bytes beside the frame: the same frame sent twice is two messages to Flower."""
MESSAGE_TYPE = "query"
"""Flower's message type; ours is inside the frame."""
MAX_FRAME = 48 * 2**20
"""Largest frame, in bytes: 10^6 values in 64-bit words with room for the rest."""

FLEET_CALLS = {
    "ActivateNode": "activate-node",
    "DeactivateNode": "deactivate-node",
    "SendNodeHeartbeat": "send-node-heartbeat",
    "PullMessages": "pull-messages",
    "PushMessages": "push-messages",
}
"""The Fleet calls a node needs, each with its path on the SuperLink; no other is carried."""
OBJECT_CALLS = {
    "PullObject": "pull-object",
    "ConfirmMessageReceived": "confirm-message-received",
    "PushObject": "push-object",
}
"""What the exchange calls by itself for a node, with what its calls say; none crosses a border."""
HEADER_PREFIX = "flwr-"
"""Headers of the Flower client that the SuperLink checks."""
LONG_POLL_SECONDS = 20.0
"""How long the exchange waits for a message on the node's behalf."""
