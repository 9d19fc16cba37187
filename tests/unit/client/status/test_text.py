"""A node's status in lines: every part that is there, and no character that could mislead."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from client.state.restored import Restored
from client.status.summary import LinkStatus
from client.status.text import SHOWN_REFUSALS, restored_lines, status_lines
from tests.support.node_federation import NodeFederation


@pytest.fixture(scope="module")
def status(
    template: NodeFederation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """The status of a node with one permitted study."""
    federation = template.copied(tmp_path_factory.mktemp("text") / "federation")
    yield federation.nodes["DK"].status(LinkStatus(connected=True))
    federation.close()


@pytest.fixture
def found(status: dict[str, Any]) -> dict[str, Any]:
    return deepcopy(status)


def shown(found: dict[str, Any]) -> str:
    return "\n".join(status_lines(found))


def test_a_node_s_own_status_is_shown(found: dict[str, Any]) -> None:
    text = shown(found)
    assert text.startswith("Node of DK in ")
    assert f"{found['data']['patients']} patients" in text
    assert f"  {found['studies'][0]['id']}: permitted" in text
    assert "Budget of patients until" in text
    assert "Last refusals" not in text
    assert f"{found['log']['size']} entries" in text


def test_what_is_missing_is_left_out_or_said(found: dict[str, Any]) -> None:
    nothing = found | {
        "ledger": None,
        "studies": [],
        "data": {"fault": "The file is not there"},
        "documents": found["documents"] | {"agreement": None, "own": None},
    }
    text = shown(nothing)
    assert "Budget: not known" in text
    assert "Records: The file is not there" in text
    assert "Studies:" not in text
    assert "Agreement:" not in text


def refusal(number: int) -> dict[str, Any]:
    return {
        "at": f"2026-11-20T10:00:0{number}",
        "code": "policy",
        "clause": "agreement/sunset" if number else "",
        "what": f"Refused {number}.",
        "why": "",
        "fix": "wait" if number else "",
    }


def test_the_newest_refusals_are_shown_with_what_to_do(found: dict[str, Any]) -> None:
    many = [refusal(number) for number in range(SHOWN_REFUSALS + 2)]
    lines = [line for line in status_lines(found | {"refusals": many}) if "Refused" in line]
    assert len(lines) == SHOWN_REFUSALS
    assert lines[0].endswith("policy: Refused 0.")
    assert lines[1].endswith("policy [agreement/sunset]: Refused 1. To do: wait.")


def test_what_others_wrote_cannot_move_the_cursor(found: dict[str, Any]) -> None:
    found["documents"]["ignored"] = ["a \x1b[2Jsentence"]
    assert "\x1b" not in shown(found)


def test_a_restoration_is_shown_and_says_what_comes_next(found: dict[str, Any]) -> None:
    done = Restored("2026-11-20T10:00", 40, None, 1, ("heart", "heart", "lung"))
    lines = list(restored_lines(done))
    assert "  heart: charged 2 time(s)" in lines
    assert "  lung: charged 1 time(s)" in lines
    assert any("pratique-node up" in line for line in lines)
    found["restored"] = {
        "at": done.at,
        "entries": 40,
        "before": None,
        "assumed": list(done.assumed),
    }
    assert "an unknown number of" in shown(found)
