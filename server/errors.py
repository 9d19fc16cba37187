"""Errors of the coordinator's commands and services."""

from keys.errors import PratiqueError
from protocols.errors import ReasonCode


class CoordinatorFault(PratiqueError):
    """A command or service of the coordinator cannot do what was asked."""


def refused_with(code: ReasonCode) -> str:
    """Return the words for a country's refusal that rounds, records and `study watch` use."""
    return f"refused ({code})"


GONE = refused_with(ReasonCode.STALE)
"""Why a country failed a round if its node no longer takes part in the run."""
