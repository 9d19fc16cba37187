"""Local mode in a study: which releases a training task has, and of what size."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import binom

from protocols.errors import ProtocolFault
from protocols.numerics.mechanism import (
    LARGEST_SCALE,
    MAX_PATIENTS,
    SMALLEST_NOISE_STD,
    Mechanism,
    Rounding,
    Scope,
)
from protocols.tasks import Training
from protocols.tasks.local import UPDATE_REACH, LocalMode, most_sampled
from protocols.tasks.schedule import same_but_noise
from protocols.wire.encoding import canonical_json
from tests.support.patients import FEATURES, glm, mlp, module, release

KINDS = [glm, mlp, module]
STEPS = LocalMode(steps=4)


def shape(mechanism: Mechanism, **changes: Any) -> dict[str, Any]:
    return mechanism.model_dump() | changes


@pytest.mark.parametrize("kind", KINDS)
def test_the_steps_are_the_ordinary_release_with_local_noise(kind: Callable[..., Training]) -> None:
    (floor, train, evaluate) = kind(sampling_rate=0.3).schedule(FEATURES)
    local = kind(sampling_rate=0.3, local=STEPS).schedule(FEATURES)
    assert [m.phase for m in local] == ["cohort-floor", "local-step", "train", "evaluate"]
    assert (local[0], local[3]) == (floor, evaluate)
    changes = {"phase": "local-step", "rounds": 4 * train.rounds, "scope": Scope.LOCAL}
    assert shape(local[1]) == shape(train, **changes)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sum_of_updates_is_derived_and_has_the_least_noise(
    kind: Callable[..., Training],
) -> None:
    task = kind(local=STEPS)
    update = task.schedule(FEATURES)[2]
    assert (update.scope, update.rounding) == (Scope.DERIVED, Rounding.INTEGER)
    assert update.noise_std == SMALLEST_NOISE_STD
    assert (update.rounds, update.dimension) == (task.rounds, task.dimension(FEATURES))
    assert not update.costs
    assert update.leaves_country


@pytest.mark.parametrize("kind", KINDS)
def test_each_release_except_derived_ones_has_a_part_of_the_budget(
    kind: Callable[..., Training],
) -> None:
    for evaluation in (kind().evaluation, None):
        plain, local = kind(evaluation=evaluation), kind(evaluation=evaluation, local=STEPS)
        schedule, shares = local.schedule(FEATURES), local.cost_fractions()
        assert [bool(share) for share in shares] == [m.costs for m in schedule]
        assert sum(shares) == pytest.approx(1)
        assert tuple(share for share in shares if share) == plain.cost_fractions()


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_without_local_mode_keeps_its_digest(kind: Callable[..., Training]) -> None:
    """Digests of studies that were signed before stay the same."""
    assert "local" not in kind().model_dump(mode="json")
    assert kind(local=None) == kind()
    fields = kind(local=STEPS).model_dump(mode="json")
    assert fields["local"] == {"steps": 4}
    assert canonical_json(kind().model_dump(mode="json")).count(b'"local"') == 0


def test_a_derived_release_has_no_values_to_calibrate() -> None:
    _, step, update, _ = glm(local=STEPS).schedule(FEATURES)
    assert same_but_noise(step, step.model_copy(update={"noise_std": 999}))
    assert same_but_noise(update, update)
    assert not same_but_noise(update, update.model_copy(update={"noise_std": 999}))


@pytest.mark.parametrize("scope", [Scope.SHARED, Scope.LOCAL])
def test_no_other_release_is_accepted_as_derived(scope: Scope) -> None:
    _, _, update, _ = glm(local=STEPS).schedule(FEATURES)
    assert not same_but_noise(update.model_copy(update={"scope": scope}), update)
    assert not same_but_noise(update, update.model_copy(update={"scope": scope}))


@given(
    st.integers(2, 200),
    st.integers(1, 10**9),
    st.floats(1e-6, 1),
    st.floats(1e-3, 1_000),
    st.integers(2, 256),
)
def test_clamped_updates_of_all_countries_fit_their_lane(
    steps: int, patients: int, rate: float, clip: float, countries: int
) -> None:
    task = glm(
        sampling_rate=rate,
        clip_norm=clip,
        patients_bound=patients,
        local=LocalMode(steps=steps),
    )
    update = task.schedule(FEATURES)[2]
    widest = countries * update.reach + 12 * countries**0.5 * update.noise_std
    assert widest < 2 ** (update.lane_bits(countries) - 1)


@pytest.mark.parametrize("clip", [1e-6, 1e-3, 0.7, 1.0, 1_000.0])
def test_a_clip_norm_must_have_enough_units_of_the_lattice(clip: float) -> None:
    update = glm(clip_norm=clip, local=STEPS).schedule(FEATURES)[2]
    assert update.scale <= LARGEST_SCALE
    if update.scale < LARGEST_SCALE:
        assert update.clip_norm * update.scale >= UPDATE_REACH


def test_a_usual_update_needs_narrow_lanes() -> None:
    task = glm(patients=320, patients_bound=2_000, sampling_rate=0.02, local=LocalMode(steps=5))
    assert task.schedule(FEATURES)[2].lane_bits(4) == 21


def test_a_country_s_part_is_bounded_by_all_steps_samples() -> None:
    update = glm(patients_bound=1_000, clip_norm=2.0, local=STEPS).schedule(FEATURES)[2]
    assert update.patients_bound == 4 * 1_000
    assert update.reach == 4 * 1_000 * UPDATE_REACH
    everybody = glm(patients_bound=MAX_PATIENTS, local=STEPS).schedule(FEATURES)[2]
    assert everybody.patients_bound == MAX_PATIENTS


@pytest.mark.parametrize("patients", [1, 10, 1_000, 100_000])
@pytest.mark.parametrize("rate", [1e-6, 1e-3, 0.02, 0.5, 0.99, 1.0])
def test_a_sample_exceeds_its_bound_with_a_chance_of_2_to_the_minus_40(
    patients: int, rate: float
) -> None:
    bound = most_sampled(patients, rate)
    assert bound <= patients
    assert binom.sf(bound, patients, rate) <= 2**-40


@pytest.mark.parametrize("steps", [-1, 0, 1, 1_001])
def test_local_mode_needs_more_than_one_step(steps: int) -> None:
    with pytest.raises(ValidationError):
        LocalMode(steps=steps)


def test_more_steps_than_a_release_may_repeat_give_a_clear_error() -> None:
    glm(rounds=10_000, local=LocalMode(steps=10)).check(FEATURES)
    task = glm(rounds=10_000, local=LocalMode(steps=11))
    with pytest.raises(ProtocolFault, match="more than 100000 local steps") as caught:
        task.check(FEATURES)
    assert caught.value.fix


def test_it_states_what_it_relies_on_and_what_that_costs() -> None:
    sentence = LocalMode(steps=5).sentence(4)
    assert "5 steps" in sentence
    assert "its own noise alone" in sentence
    assert "(h=1); only an evaluation relies on h=4" in sentence
    assert "2 times less noise" in sentence


def test_gradients_are_released_by_the_steps_or_by_the_round() -> None:
    assert glm().gradient_phase == "train"
    assert glm(local=STEPS).gradient_phase == "local-step"
    assert release(glm(local=STEPS), "local-step").scope is Scope.LOCAL
