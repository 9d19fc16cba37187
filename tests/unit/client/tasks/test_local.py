"""The local descent of a country: from noised integers to an update in whole units."""

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

Descending = TrainGlm | TrainMlp
COUNTRIES = 4
START = np.linspace(-1, 1, 7)


def local(train: Callable[..., Descending] = glm, steps: int = 3, **changes: Any) -> Descending:
    return train(local=LocalMode(steps=steps), **changes)


def mechanisms(task: Descending) -> tuple[Mechanism, Mechanism]:
    """Return the releases of the local steps and of their update."""
    return task.schedule(FEATURES)[1], task.schedule(FEATURES)[2]


def begun(task: Task, model: NDArray[np.float64] = START, **changes: Any) -> Descent:
    arguments: dict[str, Any] = {"countries": COUNTRIES, "round_number": 1}
    return Descent.start(task, FEATURES, payload=vector_to_bytes(model), **arguments | changes)


def through(task: Descending, sums: list[NDArray[np.int64]], **changes: Any) -> Descent:
    descent = begun(task, **changes)
    for one in sums:
        descent = descent.step(one, mechanisms(task)[0].scale)
    return descent


def noised(task: Descending, seed: int = 0, size: float = 20.0) -> list[NDArray[np.int64]]:
    """Return the noised sums of a round's steps, each about `size` clip norms long."""
    draw, mechanism = np.random.default_rng(seed), mechanisms(task)[0]
    wide = size * mechanism.scale * mechanism.clip_norm
    steps = task.local.steps if task.local else 0
    return [draw.normal(0, wide, mechanism.dimension).astype(np.int64) for _ in range(steps)]


def test_a_step_divides_by_public_constants_only() -> None:
    task = local(sampling_rate=0.25, learning_rate=0.5, patients=80)
    scale = mechanisms(task)[0].scale
    total = np.arange(7, dtype=np.int64) * scale * 5  # a quarter of 80 / 4 patients
    descent = begun(task).step(total, scale)
    assert descent.model == pytest.approx(START - 0.5 * np.arange(7))


def test_a_descent_has_as_many_steps_as_the_study_states() -> None:
    task = local(steps=3)
    descent, steps = begun(task), 0
    while not descent.over:
        descent, steps = descent.step(np.ones(7, np.int64), 1), steps + 1
    assert steps == 3


def test_each_step_starts_from_the_model_of_the_step_before() -> None:
    descent = begun(local())
    assert vector_from_bytes(descent.payload, 7).tolist() == START.tolist()
    after = descent.step(np.full(7, 1_000, np.int64), 10)
    assert vector_from_bytes(after.payload, 7).tolist() == after.model.tolist()
    assert after.payload != descent.payload


def test_the_update_is_the_sum_of_the_noised_steps_whatever_the_step_size() -> None:
    for rate in (0.01, 100.0):
        task = local(learning_rate=rate)
        sums, (stepped, update) = noised(task), mechanisms(task)
        exact = np.sum(sums, axis=0) * (update.scale / stepped.scale)
        assert np.abs(through(task, sums).update(update) - exact).max() <= 0.5


def test_the_step_size_is_that_of_the_round() -> None:
    task = local(mlp, decay="linear", rounds=10, learning_rate=1.0)
    model = task.initial(FEATURES)
    first = begun(task, model).step(np.ones(len(model), np.int64), 1)
    last = begun(task, model, round_number=10).step(np.ones(len(model), np.int64), 1)
    assert model - last.model == pytest.approx((model - first.model) / 10)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.01, 0.3]),
    st.sampled_from([1.0, 0.2]),
    st.integers(1, COUNTRIES),
    st.sampled_from([glm, mlp]),
)
def test_the_server_s_next_model_is_the_mean_of_the_local_ones(
    seed: int, l2: float, rate: float, present: int, train: Callable[..., Descending]
) -> None:
    """The optimiser gets the sum of the updates of `present` countries; equal up to rounding."""
    task = local(train, l2=l2, sampling_rate=rate, average_last=0.0, patients_bound=100_000)
    model = np.random.default_rng(seed).normal(size=task.dimension(FEATURES))
    ended = [through(task, noised(task, seed + n), model=model) for n in range(present)]
    update = mechanisms(task)[1]
    opened = np.sum([one.update(update) for one in ended], axis=0)
    state = OptimiserState.start(model)
    state = step(task, FEATURES, update, state, opened, part=present / COUNTRIES)
    unit = task.learning_rate / (ended[0].divisor * update.scale)
    assert np.abs(state.iterate - np.mean([one.model for one in ended], axis=0)).max() <= unit


def test_the_penalty_is_in_every_local_step_and_not_in_the_server_s() -> None:
    task = local(l2=0.5, learning_rate=1.0, average_last=0.0, patients=COUNTRIES)
    still = [np.zeros(7, np.int64)] * 3
    descent = through(task, still)
    assert descent.model[1:] == pytest.approx(START[1:] * 0.5**3)
    assert descent.model[0] == START[0]
    update = mechanisms(task)[1]
    state = OptimiserState.start(START)
    state = step(task, FEATURES, update, state, COUNTRIES * descent.update(update))
    assert state.iterate == pytest.approx(descent.model, abs=1 / update.scale)


def test_an_update_is_clamped_to_its_public_reach() -> None:
    task = local(patients_bound=10)
    update = mechanisms(task)[1]
    for sign in (1, -1):
        sums = [np.full(7, sign * 2**40, np.int64)] * 3
        assert (through(task, sums).update(update) == sign * update.reach).all()


@pytest.mark.parametrize("weight", [1e308, -1e308, 1e30])
@pytest.mark.parametrize("l2", [0.0, 10.0])
def test_a_diverging_descent_continues_without_an_error(weight: float, l2: float) -> None:
    """A refusal or a warning would reveal something about the sum."""
    task = local(l2=l2, learning_rate=1_000.0, steps=20, patients=1)
    sums = [np.full(7, 2**50, np.int64)] * 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        descent = through(task, sums, model=np.full(7, weight))
        update = descent.update(mechanisms(task)[1])
    assert np.isfinite(descent.model).all()
    assert np.abs(descent.model).max() <= LARGEST_COORDINATE
    assert np.abs(update).max() <= mechanisms(task)[1].reach


@pytest.mark.parametrize("payload", [b"", bytes(48), vector_to_bytes(np.full(7, np.nan))])
def test_a_model_of_another_size_or_no_number_is_refused(payload: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        Descent.start(local(), FEATURES, countries=4, round_number=1, payload=payload)
    assert caught.value.code is ReasonCode.MALFORMED


@pytest.mark.parametrize("task", [glm(), CountPatients(patients_bound=10)])
def test_a_study_without_local_steps_has_none(task: Task) -> None:
    with pytest.raises(Refusal) as caught:
        begun(task)
    assert caught.value.code is ReasonCode.MALFORMED
