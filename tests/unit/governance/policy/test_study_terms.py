"""An officer sees every term of a study: whatever changes in it changes what `show` prints."""

from collections.abc import Mapping
from typing import Any

import pytest

from governance.documents.study import Study
from governance.policy.assessment import Act, Assessment, assess
from governance.policy.explain import explain_study
from governance.policy.study_terms import TASK_WORDS, task_terms
from protocols.errors import ProtocolFault
from protocols.tasks import TASK_KINDS
from tests.support.document_fields import Path, others, places
from tests.support.documents import NOW, agreement, study, training_fields
from tests.support.patients import series_parts

AGREED = agreement()
FEATURES: list[dict[str, Any]] = [
    {"name": "age", "type": "numeric", "bounds": [0.1, 120], "unit": "years", "centre": 50,
     "spread": 20, "missing": "impute", "fill": 45},
    {"name": "sex", "type": "categorical", "levels": ["female", "male", "other"],
     "missing": "indicator"},
    {"name": "disease", "type": "boolean"},
    {"name": "smoker", "type": "boolean", "missing": "impute", "fill": True},
    {"name": "unread", "type": "numeric", "bounds": [1, 2]},
]  # fmt: skip
WHERE = [{"feature": "age", "at_least": 40, "at_most": 90}, {"feature": "sex", "one_of": ["male"]}]
EVALUATION = {"subgroup": {"feature": "age", "edges": [40, 60]}}
TRAINED = training_fields(10, inputs=["age", "sex", "smoker"], evaluation=EVALUATION)["task"]
TASKS: Mapping[str, dict[str, Any]] = {
    "train/glm": TRAINED | {"local": {"steps": 2}},
    "train/mlp": TRAINED | {"kind": "train/mlp", "hidden": [4, 3]},
    "train/module": TRAINED
    | {
        "kind": "train/module",
        "module": "series-conv",
        "version": 1,
        "parameters": {"channels": 2},
        "parts": series_parts(inputs=3, channels=2, kernel=3, outputs=1),
    },
    "stats/count": {
        "kind": "stats/count",
        "strata": [{"feature": "age", "edges": [40, 60]}],
        "patients_bound": 10_000,
    },
    "stats/histogram": {
        "kind": "stats/histogram",
        "of": {"feature": "disease"},
        "strata": [{"feature": "age", "edges": [40, 60]}, {"feature": "sex"}],
        "patients_bound": 10_000,
    },
}
NOT_TRIED = {
    "kind": "has one value, which names the form of the document or of the task",
    "schema_version": "has one value",
    "name": "tasks refer to features by their names; tried with the feature that is not read",
    "inputs": "as name",
}
"""Fields that are not changed alone, by their last name, with the reason."""


def with_task(kind: str) -> Study:
    release = "model" if kind.startswith("train/") else "table"
    return study(
        AGREED,
        features=FEATURES,
        population={"register": "patients", "where": WHERE},
        task=TASKS[kind],
        release={"what": release, "keep_days": 365, "audience": "the public"},
    )


def assessed(asked: Study) -> Assessment:
    return assess(asked, AGREED, country="DK", now=NOW, act=Act.PROPOSE, installed_tasks=TASK_KINDS)


def shown(asked: Study, assessment: Assessment | None = None) -> str:
    """Return what is shown, without the digest, which depends on every field."""
    entries = explain_study(asked, AGREED, assessment or assessed(asked))
    return "\n".join(f"{label:14}{text}" for label, text in entries if label != "Digest")


def shown_or_none(asked: Study, assessment: Assessment) -> str | None:
    """Return what is shown; None if the study is not sound, so that it cannot be published."""
    try:
        return shown(asked, assessment)
    except (KeyError, ValueError, TypeError, AttributeError, ProtocolFault):
        return None


def field_of(path: Path) -> str:
    """Return the name of the innermost field on a path."""
    return next(step for step in reversed(path) if isinstance(step, str))


def is_sound(asked: Study) -> bool:
    try:
        return bool(Study.model_validate(asked.model_dump(mode="json")))
    except ValueError:
        return False


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("kind", TASK_KINDS)
def test_a_change_of_any_field_is_shown(kind: str) -> None:
    asked = with_task(kind)
    assessment = assessed(asked)  # of the original: what it computes depends on every field
    before = shown(asked, assessment)
    hidden, tried = [], set()
    for path, value, put in places(asked):
        for variant in map(put, others(value)):
            text = shown_or_none(variant, assessment)
            if text is not None and (value is not None or is_sound(variant)):
                tried.add(path)
                hidden += [path] if text == before and path[-1] not in NOT_TRIED else []
    assert hidden == []
    values = {path for path, value, _ in places(asked) if others(value) and value is not None}
    lists = {path[:-1] for path in values if isinstance(path[-1], int)}
    assert {field_of(path) for path in values - lists - tried} <= NOT_TRIED.keys()


def test_numbers_are_shown_exactly() -> None:
    low = 0.1 + 2**-54
    features = [FEATURES[0] | {"bounds": [low, 1234567.25]}, *FEATURES[1:]]
    fields = with_task("train/glm").model_dump(mode="json") | {"features": features}
    assert f"age ({low!r} to 1234567.25)" in shown(Study.model_validate(fields))
    assert f"age ({low!r}" not in shown(with_task("train/glm"))


def test_the_terms_of_a_model_are_in_words() -> None:
    text = shown(with_task("train/mlp"))
    for words in (
        "predicted feature: disease",
        "predicted from: age, sex, smoker",
        "rounds: 10",
        "largest contribution of a patient (clip norm): 1",
        "sums are divided by this number of patients: 320",
        "(feature: age; edges: 40, 60)",
        "widths of the hidden layers: 4, 3",
        "patients without it count as 45",
        "patients without it count as yes",
        "patients without it are marked as such",
        "Not read      unread (1 to 2)",
    ):
        assert words in text


def terms_of(evaluation: dict[str, Any], **changes: Any) -> str:
    fields = training_fields(10, inputs=["age", "sex"], evaluation=evaluation)
    return "\n".join(task_terms(study(AGREED, features=FEATURES, **fields, **changes)))


def test_the_number_of_bins_that_are_used_is_shown() -> None:
    assert "; bins: 4;" in terms_of({"bins": 4})
    assert "; bins: 4;" in terms_of({"bins": 4, "edges": [0.25, 0.5, 0.75]})
    assert "; bins: 2, by their edges (10 does not count);" in terms_of({"edges": [0.5]})


def test_the_share_of_the_budget_is_shown_only_if_it_is_used() -> None:
    assert "part of the privacy budget: 0.2" in terms_of({})
    assert "privacy budget" not in terms_of({}, accounting=2)


def test_every_task_kind_has_a_description() -> None:
    assert set(TASK_WORDS) == set(TASK_KINDS)
