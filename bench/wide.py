"""The world of `make bench-rounds`: four small invented registers and a study of 10^4 coordinates.

The study predicts a patient's diagnosis group, one of 100, from the place of residence: 100 weight
vectors, each of 99 places and a bias.
"""

import csv
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from demo.registers import HISTOGRAM_STUDY, TRAINING_STUDY
from demo.world import Site, Terms, World
from keys.clock import utc_now
from protocols.tasks import Feature, TrainGlm

STUDY = "diagnosis-groups"
COUNTRIES = ("DK", "EE", "IE", "PT")
PATIENTS_EACH = 200
SAMPLING_RATE = 0.2
GROUPS = [f"g{number:02}" for number in range(100)]
PLACES = [f"p{number:02}" for number in range(99)]
DIMENSION = len(GROUPS) * (len(PLACES) + 1)
TERMS = Terms(
    federation="wide",
    title="Agreement on measuring",
    register="invented",
    delta=1e-5,
    order=12,
    budget_epsilon=3.0,
    smallest_cohort=50,
    cohort_epsilon=0.5,
    youngest=0,
)


def wide_world(folder: Path, rounds: int) -> World:
    """Write every country's files and return their world."""
    study = wide_study(rounds, utc_now())
    features = tuple(Feature.model_validate(fields) for fields in study["features"])
    task = TrainGlm.model_validate(study["task"])
    sites = [_site(folder, country) for country in COUNTRIES]
    return World(
        folder, "invented patients", sites, TERMS, TRAINING_STUDY, HISTOGRAM_STUDY, features, task
    )


def wide_study(rounds: int, now: datetime) -> dict[str, Any]:
    """Return the study as its author would write it in YAML."""
    return {
        "kind": "study",
        "schema": 1,
        "id": STUDY,
        "title": "Diagnosis groups by place",
        "question": "Which diagnosis group is likely where?",
        "purpose": {
            "ehds": "53-1-e",
            "purpose_of_use": "HRESCH",
            "sentence": "To measure how long a round takes.",
        },
        "legal_basis": "None is needed: the patients are invented",
        "population": {"register": TERMS.register},
        "data_categories": ["ehr"],
        "countries": list(COUNTRIES),
        "features": [
            {"name": "place", "type": "categorical", "levels": PLACES},
            {"name": "diagnosis", "type": "categorical", "levels": GROUPS},
        ],
        "task": _task(rounds),
        "privacy": {"epsilon": 1.0, "delta": 1e-5},
        "recipients": ["Whoever reads bench/README.md"],
        "release": {"what": "model", "keep_days": 30, "audience": "published"},
        "expires": f"{now + timedelta(days=30):%Y-%m-%d}",
    }


def _task(rounds: int) -> dict[str, Any]:
    return {
        "kind": "train/glm",
        "family": "multinomial",
        "target": "diagnosis",
        "rounds": rounds,
        "sampling_rate": SAMPLING_RATE,
        "learning_rate": 1.0,
        "patients": round(PATIENTS_EACH * len(COUNTRIES) * SAMPLING_RATE),
        "patients_bound": 1000,
        "evaluation": None,
    }


def _site(folder: Path, country: str) -> Site:
    home = folder / "data" / country
    home.mkdir(parents=True)
    records, dictionary = home / "records.csv", home / "dictionary.yaml"
    _write_records(records, country)
    text = yaml.safe_dump(_dictionary(), sort_keys=False)
    dictionary.write_text(text, encoding="utf-8")
    return Site(country, f"Records Office of {country}", records, dictionary, newcomers=records)


def _write_records(path: Path, country: str) -> None:
    draw = np.random.default_rng(COUNTRIES.index(country))
    places = draw.choice(PLACES, PATIENTS_EACH)
    groups = draw.choice(GROUPS, PATIENTS_EACH)
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["patient", "place", "diagnosis"])
        patients = [f"{country}-{number:04}" for number in range(PATIENTS_EACH)]
        writer.writerows(zip(patients, places, groups, strict=True))


def _dictionary() -> dict[str, Any]:
    levels = {"place": PLACES, "diagnosis": GROUPS}
    return {
        "dictionary": 1,
        "title": "Invented register",
        "header": True,
        "patient": "patient",
        "features": [
            {"name": name, "type": "categorical", "codes": {code: code for code in codes}}
            for name, codes in levels.items()
        ],
    }
