"""The mishap strikes once, at its round, and a run that it missed is a failure."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from demo.federation import Federation
from demo.mishap import Mishap
from demo.party import CommandFailed


class StandIn:
    """A node that notes what is done to it, and is connected at the second look."""

    def __init__(self) -> None:
        self.acts: list[str] = []
        self.looks = 0

    def kill(self) -> None:
        self.acts.append("kill")

    def start(self, word: str, *, ready: Callable[[], bool], seconds: float) -> None:
        assert seconds > 0
        while not ready():
            pass
        self.acts.append(word)

    def ask(self, word: str) -> dict[str, Any]:
        self.looks += 1
        if self.looks == 1:
            raise CommandFailed(f"{word}: the daemon does not answer")
        return {"connected": self.looks > 2}


@pytest.fixture
def node() -> StandIn:
    return StandIn()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def mishap(node: StandIn, told: list[str], tmp_path: Path) -> Mishap:
    story = SimpleNamespace(say=told.append, command=lambda who, what: told.append(what))
    federation = SimpleNamespace(story=story, nodes={"PT": node})
    return Mishap(cast("Federation", federation), "PT", after=4)


LINE = "  round {:3}/16  train      DK EE IE PT  1.00 s"


def test_it_strikes_once_and_the_node_comes_back(mishap: Mishap, node: StandIn) -> None:
    for number in (1, 2, 3):
        mishap.look_at(LINE.format(number))
    assert node.acts == []
    for number in (4, 4, 5):
        mishap.look_at(LINE.format(number))
    assert node.acts == ["kill", "up"]
    assert node.looks == 3


def test_other_lines_do_not_set_it_off(mishap: Mishap, node: StandIn) -> None:
    for line in ("heart-admissions: running", "round   4/16", LINE.format(40), LINE.format(14)):
        mishap.look_at(line)
    assert node.acts == []


def test_it_is_explained_where_it_happened(mishap: Mishap, told: list[str]) -> None:
    mishap.look_at(LINE.format(4))
    mishap.explain()
    assert "SIGKILL" in told[0]
    assert "byte for byte" in told[-1]
    assert "rounds void: none" in told[-1]


def test_void_rounds_are_counted_and_said(mishap: Mishap, told: list[str]) -> None:
    mishap.look_at(LINE.format(4))
    mishap.look_at("  round   5/16  train      void  PT: no reply in time (stays charged)")
    mishap.explain()
    assert "rounds void: 1" in told[-1]


def test_a_run_that_ended_before_it_is_a_failure(mishap: Mishap) -> None:
    with pytest.raises(CommandFailed, match="before round 4"):
        mishap.explain()
