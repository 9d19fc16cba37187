import numpy as np

from client.records.cohort import select
from client.records.own_country import with_own_country
from client.records.source import RecordedFeature
from protocols.tasks.by_country import country_feature
from protocols.tasks.features import FeatureKind
from tests.support.patients import AGE, records

LEVELS = ("DK", "EE", "NO")


def test_every_patient_has_the_node_s_country() -> None:
    features = (AGE, country_feature(LEVELS))
    cohort = select(with_own_country(records(5), "EE"), features, ("age", "country"))
    assert cohort.columns["country"].tolist() == [1.0] * 5


def test_a_feature_of_that_name_in_the_records_is_replaced() -> None:
    told = records(4)
    feature = RecordedFeature("country", FeatureKind.CATEGORICAL, levels=("DK", "NO"))
    lying = with_own_country(told, "NO")
    mixed = {**told.columns, "country": np.array([0.0, 1.0, 0.0, np.nan])}
    replaced = with_own_country(
        type(told)(
            told.ids, {**told.features, "country": feature}, mixed, told.version, told.report
        ),
        "NO",
    )
    assert replaced.features["country"] == lying.features["country"]
    cohort = select(replaced, (country_feature(LEVELS),), ("country",))
    assert cohort.columns["country"].tolist() == [2.0] * 4


def test_the_records_themselves_stay_as_they_are() -> None:
    told = records(3)
    with_own_country(told, "DK")
    assert "country" not in told.columns
    assert with_own_country(told, "DK").version == told.version
