import math

import pytest

from protocols.numerics.mechanism import Mechanism, Rounding, Scope
from protocols.tasks.schedule import cohort_floor, counted, rounded_scale, same_but_noise


@pytest.mark.parametrize("dimension", [1, 15, 1_000, 100_000])
@pytest.mark.parametrize("clip", [0.01, 0.7, 1.0, 50.0])
def test_rounding_costs_under_one_part_in_a_hundred(dimension: int, clip: float) -> None:
    mechanism = Mechanism(
        phase="train",
        rounds=1,
        dimension=dimension,
        clip_norm=clip,
        scale=rounded_scale(clip, dimension),
        noise_std=100,
        patients_bound=1,
    )
    assert mechanism.sensitivity / (clip * mechanism.scale) < 1.01


def test_the_lane_of_a_usual_model_stays_narrow() -> None:
    mechanism = Mechanism(
        phase="train",
        rounds=1,
        dimension=20,
        clip_norm=1.0,
        scale=rounded_scale(1.0, 20),
        noise_std=2_000,
        patients_bound=3_000,
    )
    assert mechanism.lane_bits(4) == 21


@pytest.mark.parametrize("ones", range(1, 60))
def test_a_patient_counted_in_several_cells_is_not_dropped(ones: int) -> None:
    mechanism = counted("evaluate", 100, ones, 1_000)
    assert mechanism.squared_sensitivity == ones * mechanism.scale**2
    assert mechanism.rounding is Rounding.INTEGER
    assert mechanism.scope is Scope.SHARED


def test_the_cohort_floor_is_protected_by_this_country_s_noise_alone() -> None:
    floor = cohort_floor(500)
    assert floor.scope is Scope.LOCAL
    assert (floor.dimension, floor.rounds, floor.patients_bound) == (1, 1, 500)


def test_only_the_noise_may_differ_from_the_template() -> None:
    template = cohort_floor(500)
    assert same_but_noise(template, template.model_copy(update={"noise_std": 999}))
    for change in ({"scale": 1}, {"clip_norm": 2.0}, {"rounds": 2}, {"scope": Scope.SHARED}):
        assert not same_but_noise(template, template.model_copy(update=change))


def test_the_norm_of_a_count_is_at_least_its_square_root() -> None:
    assert counted("count", 3, 1, 10).clip_norm >= 1
    assert counted("evaluate", 3, 3, 10).clip_norm >= math.sqrt(3)
