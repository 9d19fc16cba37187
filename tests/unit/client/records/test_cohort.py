import math
from dataclasses import replace

import numpy as np
import pytest

from client.errors import RecordFault
from client.records.cohort import check_fit, held_out, select
from client.records.source import RecordedFeature
from protocols.tasks import Condition
from protocols.tasks.features import Feature, FeatureKind
from tests.support.patients import FEATURES, cohort, recorded, records

SECRET = bytes(32)
STUDY = "sha256:" + "a" * 64
NAN = math.nan


def fault(ours: RecordedFeature, name: str = "sex") -> RecordFault:
    with pytest.raises(RecordFault) as caught:
        check_fit(dict(recorded()) | {name: ours}, FEATURES, (name,))
    assert f"does not offer `{name}` as the study needs it" in caught.value.what
    assert caught.value.fix
    return caught.value


def test_a_feature_that_is_not_recorded_is_named() -> None:
    with pytest.raises(RecordFault) as caught:
        check_fit({"age": recorded()["age"]}, FEATURES, ("age", "sex"))
    assert "`sex`" in caught.value.what
    assert caught.value.why == "the dictionary offers age"


def test_another_type_unit_or_level_is_named() -> None:
    boolean = RecordedFeature("sex", FeatureKind.BOOLEAN)
    assert (
        fault(boolean).why == "its type is boolean in the dictionary and categorical in the study"
    )
    wide = RecordedFeature("sex", FeatureKind.CATEGORICAL, levels=("male", "other"))
    assert fault(wide).why == "the study has no level other"
    metric = replace(recorded()["sugar"], unit="mmol/l")
    assert (
        fault(metric, "sugar").why
        == "its unit is `mmol/l` in the dictionary and `mg/dl` in the study"
    )


def test_fewer_levels_and_other_bounds_fit() -> None:
    ours = dict(recorded())
    ours["stage"] = replace(ours["stage"], levels=("severe", "mild"))
    ours["age"] = replace(ours["age"], bounds=(18, 90))
    check_fit(ours, FEATURES, ("stage", "age"))


def test_levels_are_translated_to_the_studys_order() -> None:
    ours = records(4, stage=np.array([0.0, 1.0, NAN, 0.0]))
    features = dict(ours.features)
    features["stage"] = replace(features["stage"], levels=("severe", "mild"))
    selected = select(replace(ours, features=features), FEATURES, ("age", "stage"))
    assert selected.patients == 3  # `stage` excludes missing
    assert selected.columns["stage"].tolist() == [2.0, 1.0, 2.0]


def test_a_missing_value_excludes_a_patient_only_if_the_study_says_so() -> None:
    ours = records(
        3,
        age=np.array([NAN, 50.0, 50.0]),
        sugar=np.array([1.0, NAN, 1.0]),
        smoker=np.array([1.0, 1.0, NAN]),
    )
    assert select(ours, FEATURES, ("age", "sugar", "smoker")).ids == ("p1", "p2")
    assert select(ours, FEATURES, ("sugar", "smoker")).ids == ("p0", "p1", "p2")


def test_a_feature_that_the_task_does_not_read_excludes_nobody() -> None:
    ours = records(2, pressure=np.array([NAN, 120.0]))
    assert select(ours, FEATURES, ("age",)).patients == 2


def test_conditions_choose_the_population() -> None:
    ours = records(4, age=np.array([30.0, 45.0, 60.0, 45.0]), sex=np.array([0.0, 0, 0, 1]))
    conditions = (
        Condition(feature="age", at_least=40, at_most=50),
        Condition(feature="sex", one_of=("female",)),
    )
    selected = select(ours, FEATURES, ("smoker",), conditions)
    assert selected.ids == ("p1",)
    assert set(selected.columns) == {"smoker", "age", "sex"}


def test_a_condition_on_an_unrecorded_feature_does_not_fit() -> None:
    ours = records(2)
    features = {name: one for name, one in ours.features.items() if name != "age"}
    with pytest.raises(RecordFault, match="`age`"):
        select(
            replace(ours, features=features),
            FEATURES,
            ("sex",),
            (Condition(feature="age", at_least=1),),
        )


def test_a_cohort_may_be_empty() -> None:
    selected = select(records(3), FEATURES, ("age",), (Condition(feature="age", at_least=1e6),))
    assert selected.patients == 0


def test_parts_of_a_cohort_keep_ids_and_columns_together() -> None:
    everyone = cohort(10)
    mask = np.arange(10) % 3 == 0
    part = everyone.where(mask)
    assert part.ids == ("p0", "p3", "p6", "p9")
    assert part.columns["age"].tolist() == everyone.columns["age"][mask].tolist()
    assert everyone.between(4, 6).ids == ("p4", "p5")
    assert everyone.between(9, 99).patients == 1


IDS = tuple(f"patient-{n}" for n in range(4_000))


def test_the_split_is_stable_and_near_its_share() -> None:
    mask = held_out(SECRET, STUDY, IDS, 0.3)
    assert (mask == held_out(SECRET, STUDY, IDS, 0.3)).all()
    assert abs(mask.mean() - 0.3) < 0.04  # five standard errors
    assert not held_out(SECRET, STUDY, IDS, 0.0).any()


def test_the_side_of_a_patient_does_not_depend_on_other_patients() -> None:
    mask_by_id = dict(zip(IDS, held_out(SECRET, STUDY, IDS, 0.3), strict=True))
    fewer = IDS[::7]
    assert held_out(SECRET, STUDY, fewer, 0.3).tolist() == [mask_by_id[one] for one in fewer]


def test_another_secret_or_study_gives_another_split() -> None:
    first = held_out(SECRET, STUDY, IDS, 0.5)
    other = held_out(b"\x01" * 32, STUDY, IDS, 0.5)
    third = held_out(SECRET, "sha256:" + "b" * 64, IDS, 0.5)
    for mask in (other, third):
        assert 0.4 < (first == mask).mean() < 0.6


def test_numbers_beyond_the_studys_bounds_stay_in_the_cohort() -> None:
    strict = tuple(
        f if f.name != "age" else Feature(name="age", type="numeric", bounds=(0, 10))
        for f in FEATURES
    )
    assert select(records(5), strict, ("age",)).patients == 5
