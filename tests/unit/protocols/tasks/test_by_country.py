from typing import Any

import numpy as np
import pytest

from protocols.errors import ProtocolFault
from protocols.tasks import Condition, CountByFeature, CountPatients, Family, Feature, Predictor
from protocols.tasks.by_country import check_by_country, country_feature, predict_by_country
from protocols.tasks.training import sigmoid
from tests.support.patients import FEATURES, INPUTS, columns, glm, mlp, module

LEVELS = ("DK", "EE", "NO")
COUNTRY = country_feature(LEVELS)
DECLARED = (*FEATURES, COUNTRY)
TASK = glm(inputs=(*INPUTS, "country"), by_country=True)


def count(**changes: Any) -> CountPatients:
    fields = {"strata": [{"feature": "country"}], "patients_bound": 100, "by_country": True}
    return CountPatients.model_validate(fields | changes)


def fault(task: Any, features: tuple[Feature, ...] = DECLARED, *where: Condition) -> str:
    with pytest.raises(ProtocolFault) as caught:
        check_by_country(task, features, LEVELS, where)
    assert caught.value.why
    assert caught.value.fix
    return caught.value.what


@pytest.mark.parametrize(
    "task",
    [
        TASK,
        glm(by_country=True, inputs=()),
        mlp(inputs=(*INPUTS, "country"), by_country=True),
        glm(by_country=True, evaluation={"subgroup": {"feature": "country"}}),
        count(),
        CountByFeature(of={"feature": "country"}, patients_bound=10, by_country=True),
    ],
    ids=["glm", "every input", "mlp", "subgroup", "count", "histogram"],
)
def test_tasks_that_use_the_reserved_feature_are_accepted(task: Any) -> None:
    check_by_country(task, DECLARED, LEVELS, ())


@pytest.mark.parametrize(
    "declared",
    [
        None,
        country_feature(("EE", "DK", "NO")),
        country_feature(("DK", "EE")),
        country_feature(("DK", "EE", "NO", "PT")),
        COUNTRY.model_copy(update={"missing": "indicator"}),
        Feature(name="country", type="boolean"),
    ],
    ids=["missing", "reordered", "fewer", "more", "with missing values", "another type"],
)
def test_another_feature_than_the_reserved_one_is_refused(declared: Feature | None) -> None:
    features = FEATURES if declared is None else (*FEATURES, declared)
    assert "needs the feature `country`" in fault(count(), features)


def test_without_by_country_a_feature_of_that_name_is_an_ordinary_one() -> None:
    ordinary = (*FEATURES, country_feature(("north", "south")))
    condition = Condition(feature="country", one_of=("north",))
    check_by_country(glm(inputs=("age", "country")), ordinary, LEVELS, (condition,))


def test_by_country_without_a_use_of_the_country_is_refused() -> None:
    assert "does not use" in fault(glm(by_country=True))
    assert "does not use" in fault(count(strata=[{"feature": "sex"}]))


def test_the_country_is_no_target_and_no_condition() -> None:
    target = glm(Family.MULTINOMIAL, target="country", inputs=("age",), by_country=True)
    assert "predicts `country`" in fault(target)
    condition = Condition(feature="country", one_of=("DK",))
    assert "has a condition" in fault(count(), DECLARED, condition)


def test_a_module_cannot_have_it_since_nobody_could_state_its_rule() -> None:
    assert "`train/module` cannot" in fault(module(by_country=True))


@pytest.mark.parametrize("task", [glm(), count(by_country=False), mlp()])
def test_the_field_is_left_out_if_it_is_false(task: Any) -> None:
    assert "by_country" not in task.model_dump(mode="json")
    assert type(task).model_validate(task.model_dump() | {"by_country": False}) == task
    assert TASK.model_dump(mode="json")["by_country"] is True


def predicted(task: Predictor, model: np.ndarray, country: float) -> np.ndarray:
    table = {**columns(6), "country": np.full(6, country)}
    return predict_by_country(task, DECLARED, model, table, ("DK", "NO"))


def test_another_country_gets_the_mean_of_the_intercepts_that_trained() -> None:
    generator = np.random.default_rng(3)
    model = generator.normal(size=TASK.dimension(DECLARED))
    rows = TASK.rows(DECLARED, {**columns(6), "country": np.zeros(6)})
    shared = rows[:, :-3] @ model[:-3]
    denmark, _, norway = model[-3:]
    for country, own in ((0.0, denmark), (2.0, norway), (np.nan, (denmark + norway) / 2)):
        expected = sigmoid(shared + own)[:, None]
        assert predicted(TASK, model, country) == pytest.approx(expected)


def test_a_network_gives_another_country_the_mean_of_its_outputs() -> None:
    network = mlp(inputs=(*INPUTS, "country"), by_country=True)
    model = np.random.default_rng(4).normal(size=network.dimension(DECLARED))

    def outputs(country: float) -> np.ndarray:
        table = {**columns(6), "country": np.full(6, country)}
        return network.outputs(DECLARED, model, network.rows(DECLARED, table))

    expected = sigmoid((outputs(0.0) + outputs(2.0)) / 2)
    assert predicted(network, model, np.nan) == pytest.approx(expected)
    assert (predicted(network, model, 2.0) == sigmoid(outputs(2.0))).all()
