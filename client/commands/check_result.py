"""The result of one check of `pratique-node doctor`, and how a check reports it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum

from keys.errors import PratiqueError, reason_of


class CheckState(StrEnum):
    """The outcome of a check; `soon` needs attention, but is no fault yet."""

    GOOD = "good"
    SOON = "soon"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class CheckResult:
    """The result of one check: a sentence, and what to do."""

    name: str
    state: CheckState
    says: str
    fix: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the fields as JSON values."""
        return {key: str(value) for key, value in asdict(self).items()}


class SkipCheck(Exception):
    """Raised by a check that cannot be made; the text is the reason."""


class NeedsAttention(Exception):
    """Raised if the subject is good now but not for long, or probably not as meant: (says, fix)."""


def run_check(name: str, check: Callable[[], str]) -> CheckResult:
    """Run a check and return its result; the check returns a sentence, or raises."""
    try:
        return CheckResult(name, CheckState.GOOD, check())
    except NeedsAttention as attention:
        return CheckResult(name, CheckState.SOON, *attention.args)
    except SkipCheck as skipped:
        return CheckResult(name, CheckState.SKIPPED, f"not checked: {skipped}")
    except PratiqueError as fault:
        says = fault.sentence
        return CheckResult(name, CheckState.FAILED, says, fault.fix)
    except OSError as error:
        fix = "check that the file exists and that this user may read it"
        path = f"The file {error.filename}: " if error.filename else ""
        return CheckResult(name, CheckState.FAILED, f"{path}{reason_of(error)}", fix)
