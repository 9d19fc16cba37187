"""The result of a check of the doctor: one state for each way in which a check ends."""

from collections.abc import Callable

import pytest

from client.commands.check_result import (
    CheckResult,
    CheckState,
    NeedsAttention,
    SkipCheck,
    run_check,
)
from client.errors import NodeFault


def raising(error: Exception) -> Callable[[], str]:
    """Return a check that raises."""

    def check() -> str:
        raise error

    return check


def test_a_sentence_is_a_good_result() -> None:
    expected = CheckResult("disk", CheckState.GOOD, "2 GiB free")
    assert run_check("disk", lambda: "2 GiB free") == expected


@pytest.mark.parametrize(
    ("error", "state", "says", "fix"),
    [
        (NeedsAttention("ends soon", "renew"), CheckState.SOON, "ends soon", "renew"),
        (SkipCheck("there is no node yet"), CheckState.SKIPPED, "not checked: there is", ""),
        (NodeFault("Down", why="refused", fix="call"), CheckState.FAILED, "Down; ref", "call"),
        (NodeFault("Down", fix="call"), CheckState.FAILED, "Down", "call"),
        (FileNotFoundError(2, "No such file", "x.csv"), CheckState.FAILED, "No such", "check that"),
    ],
)
def test_each_kind_of_error_has_its_state(
    error: Exception, state: CheckState, says: str, fix: str
) -> None:
    result = run_check("link", raising(error))
    assert (result.name, result.state) == ("link", state)
    assert says in result.says
    assert result.fix.startswith(fix)


def test_a_result_is_json() -> None:
    result = CheckResult("disk", CheckState.FAILED, "full", "make room")
    assert result.to_json() == {
        "name": "disk",
        "state": "failed",
        "says": "full",
        "fix": "make room",
    }
