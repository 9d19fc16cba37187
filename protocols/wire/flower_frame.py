"""How a Flower message contains a frame, and which Fleet calls may pass the exchange.

A frame is one signed message of this project; to Flower it is bytes under a name. A Flower message
has one object, a ConfigRecord with the frame in it, and that object's hash is its name. So one call
transfers all of it. Flower's own nested objects (message, dict, record) would need three calls.
"""

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
LONG_POLL_SECONDS = 20.0
"""How long the exchange waits for a message on the node's behalf."""
