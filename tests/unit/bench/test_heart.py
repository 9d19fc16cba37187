import numpy as np
import pytest

from bench import heart
from client.records.cohort import check_fit
from client.records.dictionary import read_dictionary
from protocols.tasks import TrainGlm

NEEDS_DATA = pytest.mark.skipif(
    not heart.DEFAULT_FOLDER.is_dir(), reason="the heart-disease files are not beside the project"
)


def task() -> TrainGlm:
    return heart.task(heart.TRAINING)


def test_the_study_fits_the_dictionary() -> None:
    features = heart.features()
    task().check(features)
    check_fit(read_dictionary(heart.DICTIONARY).recorded(), features, task().names_used(features))


def test_the_model_is_small_enough_for_few_patients() -> None:
    names = task().coordinate_names(heart.features())
    assert len(names) == 15
    assert "cholesterol is missing" in names


@NEEDS_DATA
def test_all_records_of_the_four_hospitals_are_read() -> None:
    hospitals = heart.hospitals(heart.DEFAULT_FOLDER)
    assert {country: hospital.patients for country, hospital in hospitals.items()} == {
        "US": 303,
        "HU": 294,
        "CH": 123,
        "XV": 200,
    }
    assert sum(hospital.patients for hospital in hospitals.values()) == heart.PATIENTS
    ill = sum(int(hospital.columns["heart_disease"].sum()) for hospital in hospitals.values())
    assert ill == 509
    # A 0 in this column means not measured.
    assert np.isnan(hospitals["CH"].columns["cholesterol"]).all()
    assert not any(column.below or column.above for column in hospitals["HU"].report.columns)
