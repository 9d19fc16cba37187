"""One Cedar decision: the installed base, the agreement's policy and the country's, all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Act(StrEnum):
    """What is asked for: `propose` needs no permit yet, `contribute` does."""

    PROPOSE = "propose"
    CONTRIBUTE = "contribute"


@dataclass(frozen=True)
class PolicyRequest:
    """Who asks what of which study; `context` holds every fact of the schema."""

    coordinator: str
    act: Act
    study: str
    context: Mapping[str, Any]


@dataclass(frozen=True)
class Decision:
    """The answer, and the ids of the clauses that determined it."""

    allowed: bool
    clauses: tuple[str, ...]
    sentence: str


def decide(request: PolicyRequest, base: str, national: str | None) -> Decision:
    """Return Allow only where the installed base, `base` and `national` all allow.

    Anything but a clean Allow refuses: NoDecision, an evaluation error, a policy that does not
    validate, a national policy that permits.
    """
    raise NotImplementedError


def check_national(text: str) -> None:
    """Raise DocumentFault unless every policy of the text is a `forbid` that fits the schema."""
    raise NotImplementedError
