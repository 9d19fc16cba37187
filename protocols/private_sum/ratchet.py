"""Key chain of each pair of countries: one step forward for each round, none backwards.

From a round's value the round's mask and sealing keys and the next value are derived; then it is
erased. So a thief who gets the chain later can derive no key of a past round.
"""

from keys.derive import derive_key
from protocols.private_sum.setup import ordered
from protocols.proto.round_pb2 import PHASE_CONFIRM, PHASE_CONTRIBUTE
from protocols.wire.signed_message import bind

CHAIN_LABEL = "pratique/chain/v1"
CONFIRM_LABEL = "pratique/confirm/v1"
MASK_LABEL = "pratique/mask/v1"
SEAL_LABEL = "pratique/seal/v1"


def confirmation(pair_secret: bytes, transcript: bytes, sender: str, receiver: str) -> bytes:
    """Return the 32-byte MAC by which `sender` shows `receiver` that it holds the pair secret."""
    return derive_key(pair_secret, CONFIRM_LABEL, bind(transcript, PHASE_CONFIRM, sender, receiver))


def first_link(pair_secret: bytes, transcript: bytes, one: str, other: str) -> bytes:
    """Return the chain's value for round 1; both countries compute the same."""
    return derive_key(
        pair_secret, CHAIN_LABEL, bind(transcript, PHASE_CONFIRM, *ordered(one, other))
    )


def advance(link: bytes, transcript: bytes, one: str, other: str, rounds: int) -> bytes:
    """Return the chain's value `rounds` rounds later."""
    binding = bind(transcript, PHASE_CONTRIBUTE, *ordered(one, other))
    for _ in range(rounds):
        link = derive_key(link, CHAIN_LABEL, binding)
    return link


def mask_key(link: bytes, context: bytes, one: str, other: str) -> bytes:
    """Return s_ij, the key of the pair's mask in the round of `context`."""
    return derive_key(link, MASK_LABEL, bind(context, PHASE_CONTRIBUTE, *ordered(one, other)))


def sealing_key(link: bytes, context: bytes, sender: str, receiver: str) -> bytes:
    """Return the key under which `sender` seals its share for `receiver` in this round."""
    return derive_key(link, SEAL_LABEL, bind(context, PHASE_CONTRIBUTE, sender, receiver))
