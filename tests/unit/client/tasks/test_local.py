"""The local descent of a country: from noisy integers to an update in lattice units."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.tasks.local import LARGEST_COORDINATE, Descent
from protocols.errors import ReasonCode, Refusal
from protocols.numerics.mechanism import Mechanism
from protocols.tasks import CountPatients, Task, TrainGlm, TrainMlp
from protocols.tasks.layout import vector_from_bytes, vector_to_bytes
from protocols.tasks.local import LocalMode
from server.learning.optimiser import OptimiserState, step
from tests.support.patients import FEATURES, glm, mlp

LocalTraining = TrainGlm | TrainMlp
COUNTRIES = 4
START = np.linspace(-1, 1, 7)


def local(
    train: Callable[..., LocalTraining] = glm, steps: int = 3, **changes: Any
) -> LocalTraining:
    return train(local=LocalMode(steps=steps), **changes)


def mechanisms(task: LocalTraining) -> tuple[Mechanism, Mechanism]:
    """Return the releases of the local steps and of their update."""
    return task.schedule(FEATURES)[1], task.schedule(FEATURES)[2]


def start_descent(task: Task, model: NDArray[np.float64] = START, **changes: Any) -> Descent:
    arguments: dict[str, Any] = {"countries": COUNTRIES, "round_number": 1}
    return Descent.start(task, FEATURES, payload=vector_to_bytes(model), **arguments | changes)


def descent_after(task: LocalTraining, sums: list[NDArray[np.int64]], **changes: Any) -> Descent:
    descent = start_descent(task, **changes)
    for step_sum in sums:
        descent = descent.step(step_sum, mechanisms(task)[0].scale)
    return descent


def noisy_sums(task: LocalTraining, seed: int = 0, size: float = 20.0) -> list[NDArray[np.int64]]:
    """Return the noisy sums of a round's steps, each about `size` clip norms long."""
    generator, mechanism = np.random.default_rng(seed), mechanisms(task)[0]
    std = size * mechanism.scale * mechanism.clip_norm
    steps = task.local.steps if task.local else 0
    return [generator.normal(0, std, mechanism.dimension).astype(np.int64) for _ in range(steps)]


def test_a_step_divides_by_public_constants_only() -> None:
    task = local(sampling_rate=0.25, learning_rate=0.5, patients=80)
    scale = mechanisms(task)[0].scale
    total = (
        np.arange(7, dtype=np.int64) * scale * 5
    )  # 5 = 0.25 · 80 / 4 expected patients of one country
    descent = start_descent(task).step(total, scale)
    assert descent.model == pytest.approx(START - 0.5 * np.arange(7))


def test_a_descent_has_as_many_steps_as_the_study_states() -> None:
    task = local(steps=3)
    descent, steps = start_descent(task), 0
    while not descent.over:
        descent, steps = descent.step(np.ones(7, np.int64), 1), steps + 1
    assert steps == 3


def test_each_step_starts_from_the_model_of_the_step_before() -> None:
    descent = start_descent(local())
    assert vector_from_bytes(descent.payload, 7).tolist() == START.tolist()
    after = descent.step(np.full(7, 1_000, np.int64), 10)
    assert vector_from_bytes(after.payload, 7).tolist() == after.model.tolist()
    assert after.payload != descent.payload


def test_the_update_is_the_sum_of_the_noisy_steps_whatever_the_step_size() -> None:
    for rate in (0.01, 100.0):
        task = local(learning_rate=rate)
        sums, (step_mechanism, update) = noisy_sums(task), mechanisms(task)
        exact = np.sum(sums, axis=0) * (update.scale / step_mechanism.scale)
        assert np.abs(descent_after(task, sums).update(update) - exact).max() <= 0.5


def test_the_step_size_is_that_of_the_round() -> None:
    task = local(mlp, decay="linear", rounds=10, learning_rate=1.0)
    model = task.initial(FEATURES)
    first = start_descent(task, model).step(np.ones(len(model), np.int64), 1)
    last = start_descent(task, model, round_number=10).step(np.ones(len(model), np.int64), 1)
    assert model - last.model == pytest.approx((model - first.model) / 10)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.01, 0.3]),
    st.sampled_from([1.0, 0.2]),
    st.integers(1, COUNTRIES),
    st.sampled_from([glm, mlp]),
)
def test_the_next_model_of_the_server_is_the_mean_of_the_local_models(
    seed: int, l2: float, rate: float, countries: int, train: Callable[..., LocalTraining]
) -> None:
    """The optimiser gets the sum of the updates of some of the countries; equal up to rounding."""
    task = local(train, l2=l2, sampling_rate=rate, average_last=0.0, patients_bound=100_000)
    model = np.random.default_rng(seed).normal(size=task.dimension(FEATURES))
    sums = [noisy_sums(task, seed + n) for n in range(countries)]
    descents = [descent_after(task, of_country, model=model) for of_country in sums]
    update = mechanisms(task)[1]
    opened_sum = np.sum([descent.update(update) for descent in descents], axis=0)
    state = OptimiserState.start(model)
    state = step(task, FEATURES, update, state, opened_sum, part=countries / COUNTRIES)
    unit = task.learning_rate / (descents[0].divisor * update.scale)
    mean = np.mean([descent.model for descent in descents], axis=0)
    assert np.abs(state.iterate - mean).max() <= unit


def test_the_penalty_is_in_every_local_step_and_not_in_the_step_of_the_server() -> None:
    task = local(l2=0.5, learning_rate=1.0, average_last=0.0, patients=COUNTRIES)
    zero_sums = [np.zeros(7, np.int64)] * 3
    descent = descent_after(task, zero_sums)
    assert descent.model[1:] == pytest.approx(START[1:] * 0.5**3)
    assert descent.model[0] == START[0]
    update = mechanisms(task)[1]
    state = OptimiserState.start(START)
    state = step(task, FEATURES, update, state, COUNTRIES * descent.update(update))
    assert state.iterate == pytest.approx(descent.model, abs=1 / update.scale)


def test_an_update_is_clamped_to_its_public_bound() -> None:
    task = local(patients_bound=10)
    update = mechanisms(task)[1]
    for sign in (1, -1):
        sums = [np.full(7, sign * 2**40, np.int64)] * 3
        assert (descent_after(task, sums).update(update) == sign * update.reach).all()


@pytest.mark.parametrize("weight", [1e308, -1e308, 1e30])
@pytest.mark.parametrize("l2", [0.0, 10.0])
def test_a_diverging_descent_continues_without_an_error(weight: float, l2: float) -> None:
    """A refusal or a warning would reveal something about the sum."""
    task = local(l2=l2, learning_rate=1_000.0, steps=20, patients=1)
    sums = [np.full(7, 2**50, np.int64)] * 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        descent = descent_after(task, sums, model=np.full(7, weight))
        update = descent.update(mechanisms(task)[1])
    assert np.isfinite(descent.model).all()
    assert np.abs(descent.model).max() <= LARGEST_COORDINATE
    assert np.abs(update).max() <= mechanisms(task)[1].reach


@pytest.mark.parametrize("payload", [b"", bytes(48), vector_to_bytes(np.full(7, np.nan))])
def test_a_model_of_another_size_or_with_nan_is_refused(payload: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        Descent.start(local(), FEATURES, countries=4, round_number=1, payload=payload)
    assert caught.value.code is ReasonCode.MALFORMED


@pytest.mark.parametrize("task", [glm(), CountPatients(patients_bound=10)])
def test_a_study_without_local_mode_starts_no_descent(task: Task) -> None:
    with pytest.raises(Refusal) as caught:
        start_descent(task)
    assert caught.value.code is ReasonCode.MALFORMED
