"""Kill a node's process at every failpoint and at random moments, run after run.

PRATIQUE_TEST_KILLS sets the number of kills at random moments.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.border.failpoints import Failpoint
from protocols.errors import ReasonCode
from protocols.tasks.layout import vector_to_bytes
from tests.support.crash_scenario import (
    LEFT,
    MOMENT,
    WAYS,
    CrashScenario,
    Plan,
    ScenarioParties,
)
from tests.support.documents import COUNTRIES, training_fields
from tests.support.node_federation import NodeFederation

pytestmark = [pytest.mark.fault, pytest.mark.timeout(1_500)]

KILLS_AT_MOMENTS = int(os.environ.get("PRATIQUE_TEST_KILLS", "120"))
ROUNDS = 5
TRAINING = training_fields(ROUNDS - 1, evaluation={})
DEAR, MUCH = 400, {"epsilon": 3.0, "delta": 1e-5}
"""Noise so small that a run costs 0.61 of the 2.11 of a period, in RDP at order 8."""
POINTS = sum(len(group) for way in WAYS.values() for group in way)
EACH_COUNTS = {"cohort_count": None}
"""An agreement under which each study counts its cohort, and so passes every point of a count."""
ROOMY = EACH_COUNTS | {
    "budget": [
        {"register": "patients", "period_days": 365, "epsilon": 40.0, "delta": 1e-4, "order": 8}
    ]
}
"""A budget for the counts of many studies."""
Opened = Callable[..., ScenarioParties]


@pytest.fixture
def make_parties(tmp_path: Path) -> Iterator[Opened]:
    """Make federations in which one country's node can be killed."""
    opened_parties: list[ScenarioParties] = []

    def opened(country: str, **changes: Any) -> ScenarioParties:
        opened_parties.append(
            ScenarioParties(NodeFederation(tmp_path / "federation", changes=changes), country)
        )
        return opened_parties[-1]

    yield opened
    for each in opened_parties:
        each.node.kill()
        each.federation.close()


def report_kills(deaths: Counter[tuple[str, str]]) -> int:
    """Print the failpoints at which the node was killed, and return the number of kills."""
    for (phase, where), number in sorted(deaths.items()):
        print(f"{number:5d}  {phase:12s} {where}")
    return sum(deaths.values())


@pytest.mark.parametrize("country", COUNTRIES)
def test_node_killed_at_every_point_of_every_message(make_parties: Opened, country: str) -> None:
    parties = make_parties(country)
    index = COUNTRIES.index(country)
    plan = Plan(index, shuffled=index % 2 == 1)
    another = {1: COUNTRIES[index - 1]}
    CrashScenario(parties, parties.approved("heart-by-sex"), plan, without=another).run_to_end()
    assert {step for _, step in parties.deaths} == {*Failpoint, LEFT}
    assert report_kills(parties.deaths) == POINTS + 1 + len(WAYS)


def test_node_killed_at_every_point_of_every_training_round(make_parties: Opened) -> None:
    parties = make_parties("NO")
    study = parties.approved("who-is-ill", **TRAINING)
    model = vector_to_bytes(np.zeros(study.mechanisms[1].dimension))
    CrashScenario(parties, study, Plan(4), model, without={1: "PT"}).run_to_end()
    a_round = [sum(len(group) for group in WAYS[phase]) + 1 for phase in ("contribute", "answer")]
    assert report_kills(parties.deaths) == POINTS + 1 + len(WAYS) + (ROUNDS - 1) * sum(a_round)


def test_node_killed_in_rounds_from_which_another_country_is_missing(make_parties: Opened) -> None:
    parties = make_parties("NO")
    study = parties.approved("who-is-ill", **TRAINING)
    model = vector_to_bytes(np.zeros(study.mechanisms[1].dimension))
    without = {1: "DK", 2: "EE", 4: "PT", 5: "DK"}
    CrashScenario(parties, study, Plan(5, points=0.3, moments=1), model, without).run_to_end()
    report_kills(parties.deaths)
    assert sum(deaths for (phase, _), deaths in parties.deaths.items() if phase == "agree") >= len(
        without
    )


def test_node_killed_at_some_points_of_several_runs(make_parties: Opened) -> None:
    """Kill once at each of some points; the test above kills at every point."""
    parties = make_parties("DK", **ROOMY)
    for number in range(6):
        study = parties.approved(f"study-{number}", privacy=MUCH)
        CrashScenario(
            parties, study, Plan(number, points=0.2, left=0.2, shuffled=True)
        ).run_to_end()
    assert report_kills(parties.deaths) > 6 * POINTS // 10


def test_node_killed_at_random_moments(make_parties: Opened) -> None:
    parties = make_parties("EE", **ROOMY)
    number = 0
    while parties.deaths.total() < KILLS_AT_MOMENTS:
        study = parties.approved(f"study-{number}", privacy=MUCH)
        longest = 0.1 + 0.1 * (number % 4)
        plan = Plan(number, points=0.05, left=0.1, moments=4, longest=longest)
        CrashScenario(parties, study, plan).run_to_end()
        number += 1
    report_kills(parties.deaths)
    assert (
        sum(n for (_, where), n in parties.deaths.items() if where == MOMENT)
        > KILLS_AT_MOMENTS // 2
    )


def test_node_killed_again_and_again_when_the_budget_runs_out(make_parties: Opened) -> None:
    """Three runs fit the budget; the fourth is refused at every kill, and is charged nothing."""
    parties = make_parties("DK", **EACH_COUNTS)
    for number in range(3):
        study = parties.approved(f"study-{number}", DEAR, privacy=MUCH)
        CrashScenario(parties, study, Plan(number, points=0.3)).run_to_end()
    refused = CrashScenario(parties, parties.approved("one-too-many", DEAR, privacy=MUCH), Plan(9))
    assert refused.until_refused() is ReasonCode.BUDGET
    parties.state_checks.check()
    assert parties.state_checks.charged(refused.run.id) == Counter()
    report_kills(parties.deaths)
