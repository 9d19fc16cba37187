import json
import math
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from protocols.errors import ProtocolFault
from protocols.numerics.factored_rounding import factored_scale
from protocols.numerics.mechanism import Rounding
from protocols.tasks import Family, Task, TrainMlp, TrainModule
from protocols.tasks.features import FloatArray
from protocols.tasks.network import Decay
from tests.support.patients import FEATURES, columns, glm, mlp, module

INPUTS = 6
TASKS = [mlp(), module()]


@pytest.mark.parametrize("task", TASKS, ids=lambda one: str(one.kind))
def test_the_task_is_read_back_from_a_study(task: Any) -> None:
    text = json.dumps(task.model_dump(mode="json"))
    assert TypeAdapter(Task).validate_json(text, strict=True) == task


@pytest.mark.parametrize("task", TASKS, ids=lambda one: str(one.kind))
def test_rows_are_the_glm_s_without_their_bias(task: Any) -> None:
    people = columns(9)
    rows = task.rows(FEATURES, people)
    assert rows.shape == (9, task.width(FEATURES)) == (9, INPUTS)
    assert np.array_equal(rows, glm().rows(FEATURES, people)[:, 1:])


@pytest.mark.parametrize("task", TASKS, ids=lambda one: str(one.kind))
def test_the_schedule_is_floor_training_and_evaluation(task: Any) -> None:
    task.check(FEATURES)
    floor, train, evaluate = task.schedule(FEATURES)
    assert (floor.phase, train.phase, evaluate.phase) == ("cohort-floor", "train", "evaluate")
    assert train.dimension == task.dimension(FEATURES) == len(task.initial(FEATURES))
    assert math.fsum(task.cost_fractions()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("family", "classes"), [("logistic", 1), ("linear", 1), ("multinomial", 3)]
)
def test_a_perceptron_has_weights_and_biases_of_each_layer(family: Family, classes: int) -> None:
    task = mlp(Family(family), hidden=(5, 4))
    shapes = {tensor.name: tensor.shape for tensor in task.tensors(FEATURES)}
    assert shapes == {
        "layer0.weight": (5, INPUTS),
        "layer0.bias": (5,),
        "layer1.weight": (4, 5),
        "layer1.bias": (4,),
        "layer2.weight": (classes, 4),
        "layer2.bias": (classes,),
    }


def test_a_perceptron_s_sums_are_factored_and_a_module_s_are_not() -> None:
    train = mlp().schedule(FEATURES)[1]
    assert train.rounding is Rounding.FACTORED
    assert train.scale == factored_scale(1.0, (INPUTS, 5, 3, 1))
    assert module().schedule(FEATURES)[1].rounding is Rounding.CONDITIONAL


def test_predictions_apply_the_layers_in_turn() -> None:
    task = mlp(hidden=(2,))
    model = np.zeros(task.dimension(FEATURES))
    layers = task.layers(FEATURES, model)
    layers[0][0][0, 0], layers[0][1][1] = 1.0, -3.0  # these are views: the model itself changes
    layers[1][0][0, :], layers[1][1][0] = [2.0, 5.0], 0.5
    rows = np.zeros((3, INPUTS))
    rows[:, 0] = [-1.0, 0.0, 2.0]
    assert task.outputs(FEATURES, model, rows)[:, 0].tolist() == [0.5, 0.5, 4.5]
    chances = task.predict(FEATURES, model, rows)[:, 0]
    assert chances == pytest.approx(1 / (1 + np.exp([-0.5, -0.5, -4.5])))


def test_the_penalty_excludes_biases() -> None:
    task = mlp(hidden=(2,))
    penalised = task.weights_only(FEATURES, np.ones(task.dimension(FEATURES)))
    assert penalised.tolist() == [1] * 12 + [0, 0] + [1, 1] + [0]


def rates(decay: Decay) -> FloatArray:
    task = mlp(decay=decay, rounds=4, learning_rate=2.0)
    return np.array([task.rate_at(number) for number in (1, 2, 3, 4)])


def test_the_step_size_falls_as_declared() -> None:
    assert rates(Decay.NONE).tolist() == [2, 2, 2, 2]
    assert rates(Decay.LINEAR).tolist() == [2, 1.5, 1, 0.5]
    expected = 1 + np.cos(np.pi * np.array([0, 0.25, 0.5, 0.75]))
    assert rates(Decay.COSINE) == pytest.approx(expected)
    assert glm(learning_rate=2.0).rate_at(9) == 2.0


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden": ()},
        {"hidden": (0,)},
        {"hidden": (1,) * 17},
        {"activation": "tanh"},
        {"seed": -1},
        {"seed": 2**32},
        {"decay": "steep"},
        {"code": "import os"},
    ],
    ids=str,
)
def test_a_perceptron_out_of_range_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainMlp(**mlp().model_dump() | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"module": "os.system"},
        {"module": "../module"},
        {"version": 0},
        {"parameters": {"channels": 1.5}},
        {"parameters": {"channels": -1}},
        {"parameters": {"__class__": 1}},
        {"parts": ()},
        {"parts": [{"name": "a/b", "shape": (1,)}]},
    ],
    ids=str,
)
def test_a_module_out_of_range_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainModule(**module().model_dump() | changes)


def test_a_network_too_large_is_refused_with_its_size() -> None:
    with pytest.raises(ProtocolFault, match="The model has more than 1310720 weights"):
        mlp(hidden=(2048, 2047)).check(FEATURES)
    mlp(hidden=(1024, 1024)).check(FEATURES)


def test_a_clip_norm_that_only_noise_would_fill_is_refused() -> None:
    with pytest.raises(ProtocolFault, match="clip norm 1e-07 is too small for layers"):
        mlp(hidden=(64, 64), clip_norm=1e-7).check(FEATURES)
    mlp(hidden=(64, 64), clip_norm=0.01).check(FEATURES)
