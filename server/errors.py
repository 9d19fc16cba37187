"""Errors of the coordinator's commands and services."""

from keys.errors import PratiqueError
from protocols.errors import ReasonCode


class OperationFault(PratiqueError):
    """A command or service of the coordinator cannot do what was asked."""


def refused_with(code: ReasonCode) -> str:
    """Return how rounds, records and the watcher name a country's refusal."""
    return f"refused ({code})"


GONE = refused_with(ReasonCode.STALE)
"""The cause of a country whose node is not where the run is."""
