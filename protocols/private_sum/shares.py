"""Shamir's secret sharing of a 256-bit seed, with a commitment to every share.

Shares are points of a random polynomial over the field of the largest 256-bit prime; country
number i of the sorted roster, counted from one, holds the value at i. A commitment is a hash. It
hides the share, because a share is uniformly random. A wrong share does not match its commitment.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, reduce
from operator import mul

from protocols.errors import ProtocolFault
from protocols.proto.round_pb2 import PHASE_CONTRIBUTE
from protocols.wire.signed_message import bind

PRIME = 2**256 - 189
ELEMENT_BYTES = 32

Entropy = Callable[[int], bytes]
"""`entropy(n)` returns n bytes of the operating system's generator; tests pass their own."""


def draw_element(entropy: Entropy) -> bytes:
    """Return a uniform field element, 32 bytes: a seed, or a coefficient."""
    while True:
        element = entropy(ELEMENT_BYTES)
        if int.from_bytes(element, "big") < PRIME:
            return element


def split(seed: bytes, threshold: int, holder_count: int, entropy: Entropy) -> list[bytes]:
    """Return one share for each of the holders 1, 2, …; any `threshold` of them give the seed."""
    coefficients = [seed, *(draw_element(entropy) for _ in range(threshold - 1))]
    numbers = [int.from_bytes(coefficient, "big") for coefficient in reversed(coefficients)]
    return [_encode(_evaluate(numbers, point)) for point in range(1, holder_count + 1)]


def combine(shares: Mapping[int, bytes]) -> bytes:
    """Return the seed from shares by holder number. Raises ProtocolFault for a malformed share.

    Fewer shares than the threshold, or wrong ones, give an unrelated value and no error: check
    the commitment.
    """
    points = tuple(sorted(shares))
    values = [_decode(shares[point]) for point in points]
    return _encode(sum(map(mul, _weights(points), values)) % PRIME)


def commit(context: bytes, owner: str, holder: str, element: bytes) -> bytes:
    """Return the 32-byte commitment to the owner's share for a holder, or to its whole seed.

    `holder` is a country, or "roster" for the seed.
    """
    return bind(context, PHASE_CONTRIBUTE, owner, holder, element)


def _evaluate(highest_first: list[int], point: int) -> int:
    return reduce(
        lambda value, coefficient: (value * point + coefficient) % PRIME, highest_first, 0
    )


@lru_cache(maxsize=1024)
def _weights(points: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(_weight(point, points) for point in points)


def _weight(point: int, points: tuple[int, ...]) -> int:
    others = [other for other in points if other != point]
    numerator = reduce(lambda product, other: product * other % PRIME, others, 1)
    denominator = reduce(lambda product, other: product * (other - point) % PRIME, others, 1)
    return numerator * pow(denominator, -1, PRIME) % PRIME


def _encode(number: int) -> bytes:
    return number.to_bytes(ELEMENT_BYTES, "big")


def _decode(element: bytes) -> int:
    number = int.from_bytes(element, "big")
    if len(element) != ELEMENT_BYTES or number >= PRIME:
        raise ProtocolFault("A share is not an element of the field")
    return number
