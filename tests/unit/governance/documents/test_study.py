import json
from typing import Any

import pytest
from pydantic import ValidationError

from governance.documents.permit import NodeKeys, Permit, PermitConditions
from governance.documents.study import Study
from governance.errors import DocumentFault
from protocols.numerics.mechanism import Scope
from protocols.tasks.local import LocalMode
from protocols.wire.encoding import canonical_json
from tests.support.documents import (
    COUNTRIES,
    NOW,
    agreement,
    node_keys,
    permit,
    raw_key,
    study,
    study_fields,
    training_fields,
    with_schedule,
)

AGREED = agreement()


def refused(**changes: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Study.model_validate(study_fields(AGREED, **changes))
    return " ".join(str(error["msg"]) for error in caught.value.errors())


def glm(**changes: Any) -> dict[str, Any]:
    task = {
        "kind": "train/glm",
        "family": "logistic",
        "target": "disease",
        "rounds": 10,
        "learning_rate": 0.5,
        "patients": 1_000,
        "patients_bound": 10_000,
    }
    return task | changes


def test_used_features_are_those_of_task_and_population() -> None:
    assert study(AGREED).features_used == ("age", "disease", "sex")
    narrow = study(AGREED, population={"register": "patients"})
    assert narrow.features_used == ("disease", "sex")


def test_a_schedule_changes_the_digest_of_a_draft() -> None:
    draft = Study.model_validate(study_fields(AGREED))
    assert not draft.schedule_matches_task
    study = with_schedule(draft)
    assert study.schedule_matches_task
    assert study.digest != draft.digest


@pytest.mark.parametrize(
    "change", [{"rounds": 2}, {"dimension": 3}, {"clip_norm": 9.0}, {"phase": "train"}]
)
def test_a_schedule_other_than_that_of_the_task_is_refused(change: dict[str, Any]) -> None:
    first, *others = study(AGREED).mechanisms
    proposed = study(AGREED).with_mechanisms((first.model_copy(update=change), *others))
    assert not proposed.schedule_matches_task


def test_a_schedule_with_a_missing_or_repeated_release_is_refused() -> None:
    proposed = study(AGREED)
    assert not proposed.with_mechanisms(proposed.mechanisms[:-1]).schedule_matches_task
    assert not proposed.with_mechanisms(proposed.mechanisms * 2).schedule_matches_task


def training(**changes: Any) -> Study:
    return study(AGREED, task=glm() | changes, release=RELEASE_MODEL)


def test_local_mode_adds_local_steps_and_a_derived_sum() -> None:
    proposed = training(local={"steps": 5})
    assert [m.scope for m in proposed.mechanisms] == ["local", "local", "derived", "shared"]
    assert proposed.schedule_matches_task
    assert proposed.local_mode == LocalMode(steps=5)
    assert training().local_mode is study(AGREED).local_mode is None


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (0, {"scope": Scope.DERIVED}),
        (1, {"scope": Scope.DERIVED}),
        (1, {"scope": Scope.SHARED}),
        (2, {"scope": Scope.SHARED}),
        (2, {"scope": Scope.LOCAL}),
        (2, {"noise_std": 4}),
        (2, {"scale": 10_000}),
        (3, {"scope": Scope.DERIVED}),
    ],
)
def test_a_changed_scope_or_noise_in_local_mode_is_refused(
    index: int, change: dict[str, Any]
) -> None:
    changed = list(training(local={"steps": 5}).mechanisms)
    changed[index] = changed[index].model_copy(update=change)
    assert not training(local={"steps": 5}).with_mechanisms(tuple(changed)).schedule_matches_task


def test_a_plain_training_declared_as_derived_is_refused() -> None:
    proposed = training()
    for noise_std in (3, 3_000):
        forged = {"scope": Scope.DERIVED, "noise_std": noise_std}
        floor, train, evaluate = proposed.mechanisms
        schedule = (floor, train.model_copy(update=forged), evaluate)
        assert not proposed.with_mechanisms(schedule).schedule_matches_task


def test_a_run_is_charged_for_all_releases_that_cost_except_an_already_charged_count() -> None:
    def charged(proposed: Study) -> list[str]:
        return [mechanism.phase for mechanism in proposed.charged_by_run]

    assert charged(study(AGREED)) == ["histogram"]
    assert charged(training()) == ["train", "evaluate"]
    assert charged(training(local={"steps": 5})) == ["local-step", "evaluate"]


def test_more_local_steps_than_a_release_may_repeat_are_refused() -> None:
    task = glm(rounds=10_000, local={"steps": 11})
    assert "more than 100000 local steps" in refused(task=task, release=RELEASE_MODEL)


def test_a_study_without_local_mode_has_no_local_fields() -> None:
    """So earlier studies keep their digests, and each study has one canonical form."""
    proposed = training()
    assert b"local_mode" not in proposed.canonical()
    assert b'"local":' not in proposed.canonical()
    with_null = json.loads(proposed.canonical())
    with_null["task"]["local"] = None
    with pytest.raises(DocumentFault, match="not a signed study"):
        Study.from_canonical(canonical_json(with_null))
    assert Study.from_canonical(proposed.canonical()).digest == proposed.digest


def test_an_undeclared_feature_is_reported() -> None:
    population = {"register": "patients", "where": [{"feature": "weight", "at_least": 1}]}
    assert "the feature `weight`" in refused(population=population)
    assert "`income`" in refused(task=glm(target="income"), release=RELEASE_MODEL)


RELEASE_MODEL = {"what": "model", "keep_days": 10, "audience": "parties"}


def test_a_numeric_feature_needs_bounds() -> None:
    unbounded = [{"name": "age", "type": "numeric"}, *study_fields(AGREED)["features"][1:]]
    assert "public bounds" in refused(features=unbounded)


def test_the_release_must_fit_the_task() -> None:
    assert "stats/histogram releases a table" in refused(release=RELEASE_MODEL)
    assert "train/glm releases a model" in refused(task=glm())
    trained = study(AGREED, task=glm(), release=RELEASE_MODEL)
    assert trained.task.kind == "train/glm"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"expires": "2026-08-20"}, "expires: must be later than the day"),
        ({"countries": ["DK"]}, "at least 2"),
        ({"countries": ["DK", "UK"]}, "did you mean GB"),
        ({"privacy": {"epsilon": 0, "delta": 1e-5}}, "greater than 0"),
        ({"privacy": {"epsilon": 1, "delta": 0.1}}, "less than 0.01"),
        ({"recipients": []}, "at least 1"),
        ({"agreement": "sha256:12"}, "pattern"),
        ({"task": {"kind": "train/anything"}}, "train/anything"),
        ({"data_categories": ["gossip"]}, "Art. 51"),
    ],
)
def test_other_invalid_values_are_refused(change: dict[str, Any], expected: str) -> None:
    assert expected in refused(**change)


def test_features_are_distinct() -> None:
    features = study_fields(AGREED)["features"]
    assert "same name" in refused(features=[*features, features[0]])


@pytest.mark.parametrize("code", ["HRESEARCH", "PurposeOfUse", ""])
def test_an_unknown_purpose_is_refused(code: str) -> None:
    purpose = study_fields(AGREED)["purpose"] | {"purpose_of_use": code}
    assert "HL7 PurposeOfUse" in refused(purpose=purpose)


def test_a_prohibited_purpose_can_be_stated() -> None:
    purpose = study_fields(AGREED)["purpose"] | {"ehds": "54-c"}
    assert study(AGREED, purpose=purpose).purpose.ehds == "54-c"


def test_a_permit_names_one_study_by_digest() -> None:
    granted = permit(AGREED, study(AGREED))
    assert granted.study == study(AGREED).digest
    with pytest.raises(ValidationError):
        permit(AGREED, study(AGREED), study="sha256:short")


def test_limits_of_a_permit_are_checked() -> None:
    with pytest.raises(ValidationError):
        PermitConditions(epsilon_at_most=-1.0, expires=NOW)
    with pytest.raises(ValidationError):
        PermitConditions(features=("A; DROP",), expires=NOW)
    assert (
        Permit.from_canonical(permit(AGREED, study(AGREED)).canonical()).conditions.features is None
    )


@pytest.mark.parametrize(
    "change",
    [
        {"node_auth": "ssh-rsa AAAA"},
        {"node_auth": "ecdsa-sha2-nistp384 AAAA comment"},
        {"log_origin": "a b"},
        {"log_origin": "../x y"},
        {"identity_key": "ed25519:"},
        {"country": "Denmark"},
    ],
)
def test_malformed_node_keys_are_refused(change: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        NodeKeys.model_validate(node_keys("DK").model_dump() | change)


def test_one_key_cannot_serve_two_purposes() -> None:
    same = raw_key(5).public.to_text()
    with pytest.raises(ValidationError, match="two keys"):
        NodeKeys.model_validate(
            node_keys("DK").model_dump() | {"identity_key": same, "log_key": same}
        )


def test_a_country_that_the_node_fills_in_is_not_read_and_needs_no_count_of_its_own() -> None:
    country = {"name": "country", "type": "categorical", "levels": list(COUNTRIES)}
    features = [*study_fields(AGREED)["features"], country]
    task = {"kind": "stats/count", "patients_bound": 10, "strata": [{"feature": "sex"}]}
    by_both = task | {"strata": [{"feature": "country"}, {"feature": "sex"}], "by_country": True}
    plain, by_country = study(AGREED, task=task), study(AGREED, features=features, task=by_both)
    assert by_country.features_used == plain.features_used == ("age", "sex")
    assert by_country.cohort_definition == plain.cohort_definition
    ordinary = study(AGREED, features=features, task=by_both | {"by_country": False})
    assert "country" in ordinary.features_used
    assert ordinary.cohort_definition != plain.cohort_definition


def test_a_study_of_an_earlier_version_keeps_its_digest_and_adds_up_its_costs() -> None:
    earlier = study(AGREED)
    assert earlier.accounting == 1
    assert b"accounting" not in earlier.canonical()
    assert earlier.model_copy(update={"accounting": 2}).digest != earlier.digest


def test_a_program_that_does_not_know_the_accounting_refuses_the_study() -> None:
    """As every field that a program does not know: so no two parties add up differently."""
    newer = study(AGREED).model_copy(update={"accounting": 2})
    unknown = json.loads(newer.canonical()) | {"accounting": 3}
    with pytest.raises(ValidationError, match="accounting"):
        Study.model_validate(unknown)
    assert Study.model_config["extra"] == "forbid"


def test_a_share_of_the_budget_belongs_to_the_earlier_accounting() -> None:
    fields = training_fields(4, evaluation={"share": 0.3})
    draft = study_fields(AGREED, **fields)
    assert Study.model_validate(draft).accounting == 1
    with pytest.raises(ValidationError, match="training and evaluation each have the whole"):
        Study.model_validate(draft | {"accounting": 2})
