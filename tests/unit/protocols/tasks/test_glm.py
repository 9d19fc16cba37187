import math
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from protocols.errors import ProtocolFault
from protocols.tasks import Family, Task, TrainGlm
from protocols.tasks.evaluation import Evaluation
from protocols.tasks.features import Feature
from protocols.tasks.layout import Grouping
from protocols.tasks.training import one_hot, sigmoid, softmax
from protocols.wire.encoding import canonical_json
from tests.support.patients import AGE, FEATURES, ILL, PRESSURE, columns, glm

TASKS: TypeAdapter[Task] = TypeAdapter(Task)


def fault(task: TrainGlm, features: tuple[Feature, ...] = FEATURES) -> ProtocolFault:
    with pytest.raises(ProtocolFault) as caught:
        task.check(features)
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize("family", list(Family))
def test_a_complete_task_is_accepted_and_read_back_from_its_canonical_form(family: Family) -> None:
    task = glm(family, evaluation=Evaluation(subgroup=Grouping(feature="age", edges=(50,))))
    task.check(FEATURES)
    data = canonical_json(task.model_dump(mode="json"))
    again = TASKS.validate_json(data, strict=True)
    assert again == task
    assert canonical_json(again.model_dump(mode="json")) == data


def test_an_unknown_target_or_input_is_named() -> None:
    assert "`cured`" in fault(glm(target="cured")).what
    problem = fault(glm(inputs=("age", "weight")))
    assert "`weight`" in problem.what
    assert "list of inputs" in problem.what


@pytest.mark.parametrize(
    ("family", "target", "need"),
    [
        (Family.LOGISTIC, "pressure", "boolean"),
        (Family.LINEAR, "ill", "numeric"),
        (Family.MULTINOMIAL, "ill", "categorical"),
    ],
)
def test_a_target_must_fit_its_family(family: Family, target: str, need: str) -> None:
    problem = fault(glm(family, target=target))
    assert f"`{target}`" in problem.what
    assert problem.why == f"its target must be {need}"


@pytest.mark.parametrize("kept", [{"missing": "indicator"}, {"missing": "impute", "fill": False}])
def test_a_patient_without_a_target_is_left_out(kept: dict[str, Any]) -> None:
    """Such a patient has no cell in the evaluation; the node would fail at it."""
    ill = Feature(name="ill", type="boolean", **kept)
    problem = fault(glm(), tuple(ill if f.name == "ill" else f for f in FEATURES))
    assert "`ill`" in problem.what
    assert "missing: exclude" in problem.fix


def test_the_target_is_not_an_input_and_no_input_is_repeated() -> None:
    assert "include the target, or a feature twice" in fault(glm(inputs=("ill", "age"))).what
    assert "include the target, or a feature twice" in fault(glm(inputs=("age", "age"))).what


def test_a_model_needs_an_input() -> None:
    assert "at least one input" in fault(glm(inputs=()), (ILL,)).what


def test_the_subgroup_is_checked() -> None:
    task = glm(evaluation=Evaluation(subgroup=Grouping(feature="age")))
    assert "needs edges" in fault(task).what


@pytest.mark.parametrize(
    "changes",
    [
        {"rounds": 0},
        {"learning_rate": 0},
        {"learning_rate": math.inf},
        {"clip_norm": 0},
        {"patients": 0},
        {"sampling_rate": 0},
        {"sampling_rate": 1.1},
        {"momentum": 1},
        {"l2": -1},
        {"family": "poisson"},
        {"code": "import os"},
    ],
)
def test_parameters_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainGlm(**glm().model_dump() | changes)


def test_inputs_default_to_everything_but_the_target() -> None:
    task = glm(inputs=(), evaluation=None)
    assert [f.name for f in task.input_features(FEATURES)] == [
        "age",
        "sex",
        "smoker",
        "sugar",
        "pressure",
        "stage",
    ]


def test_names_used_hold_target_inputs_and_subgroup_once() -> None:
    task = glm(evaluation=Evaluation(subgroup=Grouping(feature="stage")))
    assert task.names_used(FEATURES) == ("ill", "age", "sex", "smoker", "sugar", "stage")
    same = glm(evaluation=Evaluation(subgroup=Grouping(feature="sex")))
    assert same.names_used(FEATURES) == ("ill", "age", "sex", "smoker", "sugar")


@pytest.mark.parametrize("family", list(Family))
def test_every_coordinate_of_the_model_has_a_name(family: Family) -> None:
    task = glm(family)
    names = task.coordinate_names(FEATURES)
    assert len(names) == task.dimension(FEATURES) == len(set(names))
    assert task.dimension(FEATURES) == (21 if family is Family.MULTINOMIAL else 7)


def test_multinomial_coordinates_are_level_by_level() -> None:
    names = glm(Family.MULTINOMIAL).coordinate_names(FEATURES)
    assert names[0] == "none: bias"
    assert names[7] == "mild: bias"
    assert names[-1] == "severe: sugar is missing"


def test_the_schedule_holds_floor_training_and_evaluation() -> None:
    task = glm(sampling_rate=0.25, clip_norm=0.5)
    floor, train, evaluate = task.schedule(FEATURES)
    assert (floor.phase, floor.scope, floor.dimension) == ("cohort-floor", "local", 1)
    assert (train.phase, train.rounds, train.sampling_rate) == ("train", 10, 0.25)
    assert (train.clip_norm, train.dimension) == (0.5, 7)
    assert (evaluate.phase, evaluate.rounds, evaluate.sampling_rate) == ("evaluate", 1, 1.0)
    assert evaluate.dimension == 20


def test_shares_follow_the_schedule_and_sum_to_one() -> None:
    for task in (glm(), glm(evaluation=None)):
        assert len(task.cost_fractions()) == len(task.schedule(FEATURES))
        assert sum(task.cost_fractions()) == pytest.approx(1)
        assert min(task.cost_fractions()) > 0
    assert glm(evaluation=Evaluation(share=0.3)).cost_fractions()[2] == 0.3


@pytest.mark.parametrize("family", list(Family))
def test_one_patient_in_the_evaluation_is_exactly_within_the_sensitivity(
    family: Family,
) -> None:
    task = glm(family)
    evaluate = task.schedule(FEATURES)[2]
    ones = 4 if family is Family.MULTINOMIAL else 1
    assert evaluate.squared_sensitivity == ones * evaluate.scale**2


def test_probabilities_are_probabilities() -> None:
    data = columns(50)
    for family in (Family.LOGISTIC, Family.MULTINOMIAL):
        task = glm(family)
        rows = task.rows(FEATURES, data)
        model = np.linspace(-50, 50, task.dimension(FEATURES))
        predicted = task.predict(FEATURES, model, rows)
        assert predicted.shape == (50, task.classes(FEATURES))
        assert ((predicted >= 0) & (predicted <= 1)).all()
    assert np.allclose(predicted.sum(axis=1), 1)


def test_a_zero_model_predicts_equal_probabilities() -> None:
    rows = glm().rows(FEATURES, columns(3))
    assert (glm().predict(FEATURES, np.zeros(7), rows) == 0.5).all()


def test_a_linear_prediction_stays_within_the_bounds_of_the_target() -> None:
    task = glm(Family.LINEAR)
    rows = task.rows(FEATURES, columns(20))
    predicted = task.predict(FEATURES, np.full(7, 1e6), rows)
    inside = PRESSURE.unscaled(predicted)
    assert ((inside >= 80) & (inside <= 200)).all()


def test_errors_are_shares_of_the_target_s_range() -> None:
    task = glm(Family.LINEAR)
    actual = np.array([[80.0], [140.0], [200.0]])
    exact = PRESSURE.scaled(actual)
    errors, targets = task.errors(FEATURES, exact, actual)
    assert np.allclose(errors, 0)
    assert np.allclose(targets, [[-1], [0], [1]])
    above, _ = task.errors(FEATURES, exact + 0.5, actual)
    assert np.allclose(above, 0.25)  # half a unit is a quarter of the range of two


def test_sigmoid_and_softmax_do_not_overflow() -> None:
    extremes = np.array([-1e9, 0.0, 1e9])
    assert sigmoid(extremes).tolist() == [0.0, 0.5, 1.0]
    assert softmax(extremes[None, :]).tolist() == [[0.0, 0.0, 1.0]]
    assert np.allclose(sigmoid(np.array([0.3])), 1 / (1 + math.exp(-0.3)))


def test_one_hot_encodes_level_indices() -> None:
    assert one_hot(np.array([2.0, 0.0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_rows_use_inputs_only() -> None:
    data = columns(4)
    first = glm().rows(FEATURES, data)
    data["ill"] = 1 - data["ill"]
    assert (glm().rows(FEATURES, data) == first).all()
    assert AGE.name in glm().inputs
