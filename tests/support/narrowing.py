"""Values that a test expects to be there: a test fails at once if one is missing."""

from typing import TypeVar

from protocols.private_sum.coordinator_round import OpenedSum, VoidRound

Value = TypeVar("Value")


def present(value: Value | None) -> Value:
    """Return a value that must not be None."""
    assert value is not None
    return value


def opened_sum(outcome: OpenedSum | VoidRound) -> OpenedSum:
    """Return the sum that a round opened; the round must not be void."""
    assert isinstance(outcome, OpenedSum), outcome
    return outcome
