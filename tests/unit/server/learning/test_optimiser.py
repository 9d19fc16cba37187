from typing import Any

import numpy as np
import pytest

from protocols.errors import ProtocolFault
from protocols.tasks import Family
from protocols.tasks.features import FloatArray
from protocols.tasks.layout import vector_from_bytes, vector_to_bytes
from server.learning.optimiser import OptimiserState, first_averaged, skip, step
from tests.support.patients import FEATURES, glm, mlp, release


def opened(gradient: FloatArray, scale: int, patients: int) -> np.ndarray:
    return np.rint(gradient * scale * patients).astype(np.int64)


def descend(curvature: FloatArray, best: FloatArray, **changes: float) -> OptimiserState:
    """Return the state after a descent on a quadratic function, with the steps of a real run."""
    parameters: dict[str, Any] = {"rounds": 200, "learning_rate": 0.5, "l2": 0.0, **changes}
    task = glm(**parameters)
    mechanism = release(task, "train")
    state = OptimiserState.start(np.zeros(7))
    for _ in range(task.rounds):
        gradient = curvature * (vector_from_bytes(state.payload, 7) - best)
        lattice_sum = opened(gradient, mechanism.scale, task.patients)
        state = step(task, FEATURES, mechanism, state, lattice_sum)
    return state


def test_one_plain_step_divides_by_public_constants_only() -> None:
    task = glm(sampling_rate=0.25, learning_rate=0.5, average_last=0.0)
    mechanism = release(task, "train")
    total = np.arange(7, dtype=np.int64) * mechanism.scale * 25
    state = step(task, FEATURES, mechanism, OptimiserState.start(np.zeros(7)), total)
    assert state.iterate.tolist() == (-0.5 * np.arange(7)).tolist()
    assert state.round_number == 1


def test_descent_finds_the_minimum() -> None:
    best = np.linspace(-2, 2, 7)
    state = descend(np.ones(7), best)
    assert np.allclose(state.model, best, atol=1e-3)


def test_momentum_is_faster_on_a_narrow_valley() -> None:
    curvature, best = np.array([1.0, 0.01, 1, 1, 1, 1, 1]), np.ones(7)
    slow = descend(curvature, best, rounds=100, average_last=0.0)
    quick = descend(curvature, best, rounds=100, average_last=0.0, momentum=0.9)
    assert abs(quick.model[1] - 1) < 0.5 * abs(slow.model[1] - 1)


def test_momentum_is_nesterovs() -> None:
    task = glm(learning_rate=1.0, momentum=0.5, patients=1)
    mechanism = release(task, "train")
    unit = np.full(7, mechanism.scale, dtype=np.int64)
    state = step(task, FEATURES, mechanism, OptimiserState.start(np.zeros(7)), unit)
    assert state.iterate[0] == -1.0
    assert state.position[0] == -1.5  # countries receive the look-ahead point
    assert vector_from_bytes(state.payload, 7)[0] == -1.5
    again = step(task, FEATURES, mechanism, state, unit)
    assert again.iterate[0] == -2.5
    assert again.position[0] == -3.25


def test_the_penalty_shrinks_all_but_the_bias_of_each_class() -> None:
    task = glm(Family.MULTINOMIAL, learning_rate=1.0, l2=0.5)
    mechanism = release(task, "train")
    ones = OptimiserState(0, np.ones(21), np.ones(21), np.zeros(21), 0)
    state = step(task, FEATURES, mechanism, ones, np.zeros(21, dtype=np.int64))
    weights = state.iterate.reshape(3, 7)
    assert (weights[:, 0] == 1.0).all()
    assert (weights[:, 1:] == 0.5).all()


@pytest.mark.parametrize(
    ("rounds", "share", "skipped"), [(10, 0.5, 5), (10, 0.0, 9), (10, 1.0, 0), (3, 0.5, 1)]
)
def test_iterates_of_the_last_share_are_averaged(rounds: int, share: float, skipped: int) -> None:
    task = glm(rounds=rounds, average_last=share, learning_rate=1.0, patients=1)
    assert first_averaged(task) == skipped
    mechanism = release(task, "train")
    unit = np.full(7, -mechanism.scale, dtype=np.int64)
    state = OptimiserState.start(np.zeros(7))
    for _ in range(rounds):
        state = step(task, FEATURES, mechanism, state, unit)
    assert state.averaged == rounds - skipped
    assert state.model[0] == pytest.approx(np.mean(range(skipped + 1, rounds + 1)))


def test_averaging_lowers_the_noise() -> None:
    draw = np.random.default_rng(5)

    def end(share: float) -> float:
        task = glm(rounds=60, average_last=share, learning_rate=0.5)
        mechanism = release(task, "train")
        state = OptimiserState.start(np.zeros(7))
        for _ in range(60):
            noisy = vector_from_bytes(state.payload, 7) + draw.normal(size=7)
            lattice_sum = opened(noisy, mechanism.scale, task.patients)
            state = step(task, FEATURES, mechanism, state, lattice_sum)
        return float(np.linalg.norm(state.model))

    assert np.mean([end(0.5) for _ in range(20)]) < 0.5 * np.mean([end(0.0) for _ in range(20)])


def test_a_void_round_counts_and_changes_nothing_else() -> None:
    state = descend(np.ones(7), np.ones(7), rounds=4)
    after = skip(state)
    assert after.round_number == state.round_number + 1
    assert after.payload == state.payload
    assert after.averaged == state.averaged


def test_if_every_round_was_void_the_model_is_the_initial_one() -> None:
    state = OptimiserState.start(np.zeros(7))
    for _ in range(10):
        state = skip(state)
    assert not state.model.any()


def test_updates_are_averaged_over_the_countries_in_the_sum() -> None:
    task = glm(local={"steps": 3}, average_last=0.0, learning_rate=0.5, patients=80)
    update = next(m for m in task.schedule(FEATURES) if m.phase == "train")
    total = np.arange(7, dtype=np.int64) * update.scale * 60  # of three of four countries
    state = step(task, FEATURES, update, OptimiserState.start(np.zeros(7)), total, part=3 / 4)
    assert state.iterate == pytest.approx(-0.5 * np.arange(7))


def test_a_sum_of_gradients_is_divided_by_the_same_constant_for_any_countries() -> None:
    task = glm(average_last=0.0)
    mechanism, start = release(task, "train"), OptimiserState.start(np.zeros(7))
    total = np.full(7, 1_000, dtype=np.int64)
    full_sum = step(task, FEATURES, mechanism, start, total)
    assert step(task, FEATURES, mechanism, start, total, part=0.5).to_bytes() == full_sum.to_bytes()


def test_the_penalty_of_local_mode_is_not_applied_twice() -> None:
    task = glm(local={"steps": 3}, l2=0.5, learning_rate=1.0)
    update = next(m for m in task.schedule(FEATURES) if m.phase == "train")
    ones = OptimiserState(0, np.ones(7), np.ones(7), np.zeros(7), 0)
    state = step(task, FEATURES, update, ones, np.zeros(7, dtype=np.int64))
    assert (state.iterate == 1.0).all()


def test_a_state_read_back_from_bytes_gives_the_same_next_step() -> None:
    task = glm(momentum=0.5)
    mechanism = release(task, "train")
    state = descend(np.ones(7), np.ones(7), rounds=6, momentum=0.5)
    again = OptimiserState.from_bytes(state.to_bytes())
    unit = np.full(7, 12345, dtype=np.int64)
    one = step(task, FEATURES, mechanism, state, unit)
    other = step(task, FEATURES, mechanism, again, unit)
    assert one.to_bytes() == other.to_bytes()
    assert again.round_number == 6


@pytest.mark.parametrize("cut", [0, 10, 23, 24, 191, 193])
def test_a_state_of_another_size_is_refused(cut: int) -> None:
    data = OptimiserState.start(np.zeros(7)).to_bytes()
    assert len(data) == 192
    with pytest.raises(ProtocolFault, match="stored optimiser state"):
        OptimiserState.from_bytes((data + b"\0")[:cut])


def test_a_network_starts_from_its_seed_and_its_step_size_decays() -> None:
    task = mlp(rounds=2, learning_rate=1.0, decay="linear", l2=0.5, average_last=0.0, hidden=(2,))
    mechanism = release(task, "train")
    start = OptimiserState.start(task.initial(FEATURES))
    assert start.payload == vector_to_bytes(task.initial(FEATURES))
    still = np.zeros(mechanism.dimension, dtype=np.int64)
    once = step(task, FEATURES, mechanism, start, still)
    twice = step(task, FEATURES, mechanism, once, still)
    weights = task.weights_only(FEATURES, task.initial(FEATURES))
    assert once.iterate == pytest.approx(task.initial(FEATURES) - 0.5 * weights)
    assert twice.iterate == pytest.approx(once.iterate - 0.25 * 0.5 * weights)
