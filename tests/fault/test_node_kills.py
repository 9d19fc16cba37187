"""Kill a node before or after each of its SQL statements."""

from pathlib import Path

import pytest

from tests.support.crash_scenario import (
    STATEMENT,
    WAYS,
    CrashScenario,
    Plan,
    ScenarioParties,
)
from tests.support.node_federation import NodeFederation

pytestmark = [pytest.mark.fault, pytest.mark.timeout(900)]


@pytest.mark.parametrize(("country", "stride"), [("DK", 3), ("PT", 4)])
def test_node_killed_at_every_third_or_fourth_statement_of_every_message(
    tmp_path: Path, country: str, stride: int
) -> None:
    stage = ScenarioParties(NodeFederation(tmp_path / "federation"), country)
    study = stage.approved("heart-by-sex")
    plan = Plan(stride, points=0, left=0, stride=stride)
    try:
        CrashScenario(stage, study, plan, without={1: "NO"}).through()
    finally:
        stage.node.kill()
        stage.federation.close()
    assert {phase for phase, _ in stage.deaths} == set(WAYS)
    assert {where for _, where in stage.deaths} == {STATEMENT}
    print(stage.deaths.total())
    assert stage.deaths.total() > 60
