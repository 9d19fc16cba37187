import numpy as np
import pytest

from client.tasks.glm import gradients
from client.tasks.losses import targets
from protocols.tasks import Family
from protocols.tasks.features import FloatArray
from protocols.tasks.training import sigmoid, softmax
from tests.support.patients import FEATURES, columns, glm

STEP = 1e-6


def loss(family: Family, model: FloatArray, row: FloatArray, target: FloatArray) -> float:
    linear = model.reshape(len(target), -1) @ row
    if family is Family.LINEAR:
        return float(((linear - target) ** 2).sum() / 2)
    if family is Family.MULTINOMIAL:
        return float(-np.log(softmax(linear[None, :])[0] @ target))
    chance = sigmoid(linear)[0]
    return float(-np.log(chance if target[0] else 1 - chance))


@pytest.mark.parametrize("family", list(Family))
def test_gradients_agree_with_finite_differences(family: Family) -> None:
    task, data = glm(family), columns(12, seed=3)
    rows, wanted = task.rows(FEATURES, data), targets(task, FEATURES, data)
    model = np.random.default_rng(1).normal(size=task.dimension(FEATURES))
    computed_gradients = gradients(family, model, rows, wanted)
    assert computed_gradients.shape == (12, len(model))
    for patient in range(12):
        for k in range(len(model)):
            shift = np.zeros(len(model))
            shift[k] = STEP
            above = loss(family, model + shift, rows[patient], wanted[patient])
            below = loss(family, model - shift, rows[patient], wanted[patient])
            assert computed_gradients[patient, k] == pytest.approx(
                (above - below) / (2 * STEP), abs=1e-5
            )


def test_each_patient_has_their_own_gradient() -> None:
    task, data = glm(), columns(5)
    rows, wanted = task.rows(FEATURES, data), targets(task, FEATURES, data)
    model = np.ones(7)
    together = gradients(task.family, model, rows, wanted)
    for n in range(5):
        alone = gradients(task.family, model, rows[n : n + 1], wanted[n : n + 1])
        assert np.allclose(together[n], alone[0])


def test_no_patients_give_no_gradient() -> None:
    task, data = glm(), columns(0)
    rows = task.rows(FEATURES, data)
    assert gradients(task.family, np.zeros(7), rows, targets(task, FEATURES, data)).shape == (0, 7)


def test_targets_are_booleans_levels_or_clipped_numbers() -> None:
    data = columns(3) | {
        "pressure": np.array([80.0, 140.0, 900.0]),
        "stage": np.array([0.0, 2.0, 1.0]),
        "ill": np.array([0.0, 1.0, 1.0]),
    }
    assert targets(glm(), FEATURES, data).tolist() == [[0], [1], [1]]
    assert targets(glm(Family.LINEAR), FEATURES, data).tolist() == [[-1], [0], [1]]
    several = targets(glm(Family.MULTINOMIAL), FEATURES, data)
    assert several.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_a_huge_model_gives_no_warning_and_a_bounded_residual() -> None:
    task, data = glm(), columns(5)
    rows, wanted = task.rows(FEATURES, data), targets(task, FEATURES, data)
    computed_gradients = gradients(task.family, np.full(7, 1e300), rows, wanted)
    assert (np.abs(computed_gradients) <= np.abs(rows) + 1e-9).all()
