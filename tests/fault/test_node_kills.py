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
    parties = ScenarioParties(NodeFederation(tmp_path / "federation"), country)
    study = parties.approved("heart-by-sex")
    plan = Plan(stride, points=0, left=0, stride=stride)
    try:
        CrashScenario(parties, study, plan, without={1: "NO"}).run_to_end()
    finally:
        parties.node.kill()
        parties.federation.close()
    assert {phase for phase, _ in parties.deaths} == set(WAYS)
    assert {where for _, where in parties.deaths} == {STATEMENT}
    print(parties.deaths.total())
    assert parties.deaths.total() > 60
