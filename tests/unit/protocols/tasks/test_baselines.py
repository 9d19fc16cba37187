import pytest
from pydantic import ValidationError

from protocols.tasks import Task
from protocols.tasks.baselines import CountryBaselines, baselines_of, baselines_problem
from protocols.tasks.by_country import country_feature
from tests.support.patients import FEATURES, INPUTS, glm, mlp

DECLARED = (*FEATURES, country_feature(("DK", "EE", "NO")))
TASK = glm(inputs=(*INPUTS, "country"), by_country=True)
NETWORK = mlp(inputs=(*INPUTS, "country"), by_country=True)
TWO = CountryBaselines(countries=("DK", "EE"))


def test_the_countries_that_trained_have_baselines() -> None:
    assert baselines_of(TASK, DECLARED, {"NO"}) == TWO
    every = baselines_of(TASK, DECLARED, ())
    assert every is not None
    assert every.countries == ("DK", "EE", "NO")


def test_a_model_of_which_no_round_was_opened_has_those_that_it_started_from() -> None:
    started = baselines_of(TASK, DECLARED, {"DK", "EE", "NO"})
    assert started is not None
    assert started.countries == ("DK", "EE", "NO")


@pytest.mark.parametrize(
    "task",
    [
        glm(),
        glm(inputs=(*INPUTS, "country")),
        glm(by_country=True, evaluation={"subgroup": {"feature": "country"}}),
    ],
    ids=["without", "an ordinary feature", "a subgroup alone"],
)
def test_other_models_have_none(task: Task) -> None:
    assert baselines_of(task, DECLARED, ()) is None
    assert baselines_problem(task, DECLARED, None) == ""
    assert "exactly if by_country" in baselines_problem(task, DECLARED, TWO)


def test_the_sentence_says_what_is_used_for_a_country_that_was_not_there() -> None:
    assert TWO.sentence(TASK, DECLARED) == (
        "For a country that was not in this study the model uses the mean of the intercepts of DK, "
        "EE. NO took part in no round of training, and counts as such a country."
    )
    sentence = CountryBaselines(countries=("DK", "EE", "NO")).sentence(NETWORK, DECLARED)
    assert sentence.endswith("the mean of the outputs, before the link function, of DK, EE, NO.")


def test_a_result_with_baselines_that_the_model_cannot_have_is_refused() -> None:
    assert baselines_problem(TASK, DECLARED, TWO) == ""
    assert "exactly if" in baselines_problem(TASK, DECLARED, None)
    assert "no level EE" in baselines_problem(TASK, (country_feature(("DK", "NO")),), TWO)
    assert "no level DK, EE" in baselines_problem(TASK, FEATURES, TWO)


@pytest.mark.parametrize("fields", [{"countries": ()}, {"countries": ("DK",), "otherwise": "zero"}])
def test_other_forms_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CountryBaselines.model_validate(fields)
