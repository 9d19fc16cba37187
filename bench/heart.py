"""The four heart-disease hospitals as four countries: dictionary, features and training task.

Every constant below is a round number that a clinician would name without seeing the files: 130
mmHg and 240 mg/dl are usual thresholds, 140 beats a minute is 85 % of the maximum expected at 55
years. The same study can be launched on real nodes.
"""

from pathlib import Path

from client.records.csv_source import CsvSource
from client.records.dictionary import read_dictionary
from client.records.source import Records
from protocols.tasks import Family, Feature, FeatureKind, Missing, TrainGlm
from protocols.tasks.step_size import RULE

HOSPITALS = {"US": "cleveland", "HU": "hungarian", "CH": "switzerland", "XV": "va"}
"""Country code to file. XV, a user-assigned code, is the second hospital of the US."""
DICTIONARY = Path(__file__).with_name("heart-disease.yaml")
DEFAULT_FOLDER = Path(__file__).parents[2] / "shared" / "data" / "heart-disease"
PATIENTS = 920
TRAINING = 613
"""About two thirds of them: the public divisor."""
TARGET = "heart_disease"

NUMBERS = {
    "age": ("years", (18, 100), 55, 10),
    "blood_pressure": ("mmHg", (80, 220), 130, 20),
    "max_heart_rate": ("/min", (50, 220), 140, 25),
    "st_depression": ("mm", (-3, 7), 1, 1),
    "vessels": ("", (0, 3), 1, 1),
}
"""Unit, public bounds, and a public centre and spread; a missing value is set to the centre."""
CHOLESTEROL = ("mg/dl", (80, 620), 240, 50)
YES_OR_NO = (
    "male",
    "painless",
    "atypical_pain",
    "high_blood_sugar",
    "exercise_angina",
    "st_not_rising",
    "perfusion_defect",
)
UNKNOWN = 0.5


def data_file(folder: Path, country: str) -> Path:
    """Return the file of one hospital."""
    return folder / f"processed.{HOSPITALS[country]}.data"


def hospitals(folder: Path) -> dict[str, Records]:
    """Return the records of the four hospitals, by country code, through the real CSV source."""
    dictionary = read_dictionary(DICTIONARY)
    return {
        country: CsvSource(data_file(folder, country), dictionary).read() for country in HOSPITALS
    }


def features() -> tuple[Feature, ...]:
    """Return the study's features: thirteen inputs and the target."""
    return (
        *(_number(name, fill=True) for name in NUMBERS),
        _number("cholesterol", fill=False),
        *(_yes_or_no(name) for name in YES_OR_NO),
        Feature(name=TARGET, type=FeatureKind.BOOLEAN),
    )


def _number(name: str, *, fill: bool) -> Feature:
    unit, bounds, centre, spread = NUMBERS.get(name, CHOLESTEROL)
    return Feature(
        name=name,
        type=FeatureKind.NUMERIC,
        unit=unit,
        bounds=bounds,
        centre=centre,
        spread=spread,
        missing=Missing.IMPUTE if fill else Missing.INDICATOR,
        fill=centre if fill else None,
    )


def _yes_or_no(name: str) -> Feature:
    return Feature(name=name, type=FeatureKind.BOOLEAN, missing=Missing.IMPUTE, fill=UNKNOWN)


def task(patients: int) -> TrainGlm:
    """Return the training task for about `patients` training patients, without evaluation.

    Its rounds and learning rate are preliminary: the bench chooses them as `study check` does.
    """
    return TrainGlm(
        family=Family.LOGISTIC,
        target=TARGET,
        rounds=RULE.fewest_rounds,
        learning_rate=1.0,
        clip_norm=1.0,
        patients=patients,
        patients_bound=4 * PATIENTS,
        evaluation=None,
    )
