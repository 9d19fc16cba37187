"""A schedule is made so that the noise of the cohort's count decides, and not the cohort.

The coordinator writes the schedule. Its count may have any noise under an agreement that does not
state the cost of a count; then half of all counts of an empty register were large enough.
"""

from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.node import Node
from governance.documents.study import Study
from governance.policy.assessment import assess
from protocols.errors import ReasonCode
from protocols.numerics.noise import DiscreteGaussian
from protocols.tasks.schedule import CohortThreshold, cohort_floor, largest_cohort_noise
from tests.support.documents import NOW, agreement, permit, with_schedule
from tests.support.documents import study as draft_study
from tests.support.node_federation import NodeFederation, code_of, records

ENORMOUS = 2**38
COUNTS = 24
MOST_PASSES = 3
"""More than this many of 24 counts pass with probability 10^-8 at an error rate of 0.001, and fewer
than four passed with probability 10^-4 before, when half of them did."""
DRAWS = 20_000
MOST_ERRORS = 50
"""Of 20,000 draws 20 may be wrong on average; more than 50 are with probability 10^-8."""


def answers(federation: NodeFederation, patients: int, noise_std: int) -> list[ReasonCode | None]:
    """Return DK's answers to one study, approved again and again, with the node's own noise."""
    study = with_schedule(federation.study(), cohort_noise=noise_std)
    federation.approve(study)
    federation.put_records("DK", records(patients))
    node = federation.restart("DK", noise=DiscreteGaussian())
    return [_answer(federation, node, study, number) for number in range(COUNTS)]


def _answer(federation: NodeFederation, node: Node, study: Study, number: int) -> ReasonCode | None:
    federation.permit("DK", study, sentence=f"Approved for the time {number}.")
    return code_of(node.handle(federation.run(study).request("bundle", "DK")))


@pytest.mark.parametrize(
    "patients", [1, *(pytest.param(few, marks=pytest.mark.slow) for few in (0, 49))]
)
def test_a_schedule_with_enormous_noise_lets_no_small_cohort_pass(
    tmp_path: Path, patients: int
) -> None:
    federation = NodeFederation(tmp_path / "older", changes={"cohort_count": None})
    passed = answers(federation, patients, ENORMOUS).count(None)
    federation.close()
    assert passed <= MOST_PASSES


@given(noise_std=st.integers(3, 2**40), floor=st.integers(1, 100_000), scale=st.just(128))
def test_a_cohort_below_the_floor_needs_noise_of_three_standard_deviations(
    noise_std: int, floor: int, scale: int
) -> None:
    threshold = CohortThreshold(floor, noise_std, scale)
    assert threshold.smallest_count - (floor - 1) * scale > 3.09 * noise_std
    assert threshold.sure * scale - threshold.smallest_count >= 3.09 * noise_std


@pytest.mark.parametrize("noise_std", [3, 520, 2_071, 100_000])
def test_the_error_rates_are_those_that_are_shown(noise_std: int) -> None:
    threshold = CohortThreshold(50, noise_std, 128)
    noise = DiscreteGaussian().draw(noise_std, DRAWS)
    too_few = (49 * 128 + noise >= threshold.smallest_count).sum()
    enough = (threshold.sure * 128 + noise < threshold.smallest_count).sum()
    assert max(too_few, enough) <= MOST_ERRORS


@pytest.mark.parametrize("noise_std", [3, 100, ENORMOUS])
def test_a_schedule_cannot_state_other_noise_than_the_agreement(noise_std: int) -> None:
    agreed = agreement()
    asked = with_schedule(draft_study(agreed), cohort_noise=noise_std)
    answer = assess(
        asked,
        agreed,
        country="DK",
        now=NOW,
        permit=permit(agreed, asked),
        installed_tasks=["stats/histogram"],
    )
    assert "agreement/cohort-noise" in answer.clauses


def test_an_agreement_cannot_state_noise_that_hides_the_floor() -> None:
    with pytest.raises(ValueError, match="state a larger epsilon"):
        agreement(cohort_count={"epsilon": 0.01, "delta": 1e-6})
    most = largest_cohort_noise(50)
    room = CohortThreshold(50, most, cohort_floor(1).scale)
    assert 99 * room.scale <= room.smallest_count <= 100 * room.scale
    assert next(n for n in count(50) if n >= room.sure) <= 151
