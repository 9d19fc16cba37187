"""The node is killed once, after the named round; if the run ends earlier, that is a failure."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from demo.federation import Federation
from demo.node_crash import NodeCrash
from demo.party import CommandFailed


class StandIn:
    """A node that records calls, and is connected at the third query."""

    def __init__(self) -> None:
        self.actions: list[str] = []
        self.questions = 0

    def kill(self) -> None:
        self.actions.append("kill")

    def start(self, command: str, *, ready: Callable[[], bool], seconds: float) -> None:
        assert seconds > 0
        while not ready():
            pass
        self.actions.append(command)

    def ask(self, command: str) -> dict[str, Any]:
        self.questions += 1
        if self.questions == 1:
            raise CommandFailed(f"{command}: the daemon does not answer")
        return {"connected": self.questions > 2}


@pytest.fixture
def node() -> StandIn:
    return StandIn()


@pytest.fixture
def printed() -> list[str]:
    return []


@pytest.fixture
def crash(node: StandIn, printed: list[str], tmp_path: Path) -> NodeCrash:
    story = SimpleNamespace(say=printed.append, command=lambda who, what: printed.append(what))
    federation = SimpleNamespace(story=story, nodes={"PT": node})
    return NodeCrash(cast("Federation", federation), "PT", after=4)


LINE = "  round {:3}/16  train      DK EE IE PT  1.00 s"


def test_the_node_is_killed_once_and_started_again(crash: NodeCrash, node: StandIn) -> None:
    for number in (1, 2, 3):
        crash.read_line(LINE.format(number))
    assert node.actions == []
    for number in (4, 4, 5):
        crash.read_line(LINE.format(number))
    assert node.actions == ["kill", "up"]
    assert node.questions == 3


def test_other_lines_do_not_kill_the_node(crash: NodeCrash, node: StandIn) -> None:
    for line in ("heart-admissions: running", "round   4/16", LINE.format(40), LINE.format(14)):
        crash.read_line(line)
    assert node.actions == []


def test_what_happened_is_explained(crash: NodeCrash, printed: list[str]) -> None:
    crash.read_line(LINE.format(4))
    crash.explain()
    assert "SIGKILL" in printed[0]
    assert "byte for byte" in printed[-1]
    assert "rounds void: none" in printed[-1]


def test_void_rounds_are_counted_and_printed(crash: NodeCrash, printed: list[str]) -> None:
    crash.read_line(LINE.format(4))
    crash.read_line("  round   5/16  train      void  PT: no reply in time (stays charged)")
    crash.explain()
    assert "rounds void: 1" in printed[-1]


def test_a_run_that_ended_too_early_is_a_failure(crash: NodeCrash) -> None:
    with pytest.raises(CommandFailed, match="before round 4"):
        crash.explain()
