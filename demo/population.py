"""Invent the health records of four countries, the same on every machine.

Countries differ in age, sex, habits, baseline risk and missing values, and each writes its file in
its own way: other columns, codes, delimiter and marks for missing values. Nothing here is modelled
on real people or offices; country names only make the story readable.
"""

import csv
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

Column = NDArray[np.float64]
People = dict[str, Column]
"""Columns (patients,): numbers, 0 or 1 for yes/no, 0 female and 1 male; NaN is missing."""

SEED = 2026
TRAINING, NEWCOMERS = "training", "newcomers"
RISK = {
    "age": (62.0, 11.0, 0.95),
    "male": (0.5, 1.0, 0.40),
    "bmi": (27.0, 4.5, 0.30),
    "systolic": (135.0, 18.0, 0.35),
    "hba1c": (42.0, 10.0, 0.35),
    "ldl": (3.2, 0.9, 0.25),
    "smoker": (0.0, 1.0, 0.60),
    "diabetes": (0.0, 1.0, 0.45),
    "heart_attack": (0.0, 1.0, 1.10),
}
"""For each feature: centre, spread and weight in the log-odds of admission."""
INTERCEPT = -2.1
DECIMALS = {"bmi": 1, "ldl": 1}
YES_NO = ("smoker", "diabetes", "heart_attack", "admitted")
BOUNDS = {
    "age": (40, 100),
    "bmi": (14, 60),
    "systolic": (80, 230),
    "hba1c": (20, 140),
    "ldl": (0.5, 10),
}
UNITS = {
    "age": "years",
    "bmi": "kg/m2",
    "systolic": "mmHg",
    "hba1c": "mmol/mol",
    "ldl": "mmol/L",
}


@dataclass(frozen=True)
class Layout:
    """How a country writes its file; `columns` maps each feature to the country's column."""

    columns: Mapping[str, str]
    sexes: tuple[str, str]
    truth: tuple[str, str]
    missing: str
    delimiter: str = ","
    header: bool = True


@dataclass(frozen=True)
class Country:
    """A population: its size, its habits, and the share of missing values by feature."""

    code: str
    authority: str
    patients: int
    age: float
    male: float
    bmi: float
    smoking: float
    baseline: float
    unrecorded: Mapping[str, float]
    layout: Layout


ENGLISH = {
    "patient": "patient_id",
    "age": "age",
    "male": "sex",
    "bmi": "bmi",
    "systolic": "systolic_bp",
    "hba1c": "hba1c",
    "ldl": "ldl",
    "smoker": "smoker",
    "diabetes": "diabetes",
    "heart_attack": "previous_mi",
    "admitted": "admitted_5y",
}
DANISH = {
    "patient": "borger",
    "age": "alder",
    "male": "koen",
    "bmi": "bmi",
    "systolic": "systolisk",
    "hba1c": "hba1c",
    "ldl": "ldl",
    "smoker": "ryger",
    "diabetes": "diabetes",
    "heart_attack": "tidligere_ami",
    "admitted": "indlagt_5aar",
}
ESTONIAN = {
    "patient": "isik",
    "age": "vanus",
    "male": "sugu",
    "bmi": "kmi",
    "systolic": "sys_rr",
    "hba1c": "hba1c",
    "ldl": "ldl",
    "smoker": "suitsetab",
    "diabetes": "diabeet",
    "heart_attack": "infarkt",
    "admitted": "haiglas_5a",
}
PORTUGUESE = {
    "patient": "utente",
    "age": "idade",
    "male": "sexo",
    "bmi": "imc",
    "systolic": "tas",
    "hba1c": "hba1c",
    "ldl": "ldl",
    "smoker": "fumador",
    "diabetes": "diabetes",
    "heart_attack": "enfarte",
    "admitted": "internado_5a",
}

COUNTRIES = (
    Country(
        code="DK",
        authority="Health Records Office of Denmark",
        patients=6000,
        age=61,
        male=0.49,
        bmi=26.2,
        smoking=0.17,
        baseline=-0.2,
        unrecorded={"hba1c": 0.12, "ldl": 0.08},
        layout=Layout(DANISH, ("K", "M"), ("nej", "ja"), "", delimiter=";"),
    ),
    Country(
        code="EE",
        authority="Health Records Office of Estonia",
        patients=3600,
        age=66,
        male=0.43,
        bmi=28.4,
        smoking=0.27,
        baseline=0.35,
        unrecorded={"hba1c": 0.30, "ldl": 0.22, "bmi": 0.10},
        layout=Layout(ESTONIAN, ("2", "1"), ("0", "1"), "NA"),
    ),
    Country(
        code="IE",
        authority="Health Records Office of Ireland",
        patients=4400,
        age=58,
        male=0.51,
        bmi=27.6,
        smoking=0.19,
        baseline=0.0,
        unrecorded={"hba1c": 0.38, "ldl": 0.15, "smoker": 0.06},
        layout=Layout(ENGLISH, ("female", "male"), ("no", "yes"), "-9", delimiter="\t"),
    ),
    Country(
        code="PT",
        authority="Health Records Office of Portugal",
        patients=7200,
        age=69,
        male=0.46,
        bmi=27.1,
        smoking=0.14,
        baseline=0.1,
        unrecorded={"hba1c": 0.18, "ldl": 0.30, "systolic": 0.05},
        layout=Layout(PORTUGUESE, ("F", "M"), ("N", "S"), "?", header=False),
    ),
)
FEATURES = tuple(name for name in ENGLISH if name != "patient")
OPTED_OUT = 0.015


def people(country: Country, sample: str, count: int) -> People:
    """Return `count` invented people; another `sample` gives other people of the country."""
    draw = np.random.default_rng([SEED, zlib.crc32(f"{country.code}/{sample}".encode())])
    body = _bodies(draw, country, count)
    chance = 1 / (1 + np.exp(-_log_odds(country, body)))
    body["admitted"] = _yes(draw, chance)
    for name, share in country.unrecorded.items():
        body[name][_unrecorded(draw, share, body["age"])] = np.nan
    return body


def _bodies(draw: np.random.Generator, country: Country, count: int) -> People:
    age = np.clip(draw.normal(country.age, 11, count), 40, 98).round()
    male = _yes(draw, np.full(count, country.male))
    bmi = draw.normal(country.bmi, 4.4, count).clip(15, 58)
    diabetes = _yes(draw, 1 / (1 + np.exp(-(-2.6 + 0.5 * (age - 62) / 11 + 0.5 * (bmi - 27) / 4))))
    return {
        "age": age,
        "male": male,
        "bmi": bmi.round(1),
        "systolic": (
            118 + 0.32 * (age - 40) + 0.9 * (bmi - 26) + draw.normal(0, 15, count)
        ).round(),
        "hba1c": (37 + 17 * diabetes + 0.4 * (bmi - 26) + draw.normal(0, 4.5, count)).round(),
        "ldl": draw.normal(3.3, 0.85, count).clip(0.6, 9).round(1),
        "smoker": _yes(draw, np.full(count, country.smoking)),
        "diabetes": diabetes,
        "heart_attack": _yes(draw, 0.02 + 0.10 * male * (age > 60) + 0.05 * (age > 72)),
    }


def _log_odds(country: Country, body: People) -> Column:
    parts = [weight * (body[n] - centre) / spread for n, (centre, spread, weight) in RISK.items()]
    old_smokers = 0.4 * body["smoker"] * (body["age"] > 70)
    return np.asarray(INTERCEPT + country.baseline + sum(parts) + old_smokers, dtype=np.float64)


def _yes(draw: np.random.Generator, chance: Column) -> Column:
    return (draw.random(len(chance)) < chance).astype(np.float64)


def _unrecorded(draw: np.random.Generator, share: float, age: Column) -> NDArray[np.bool_]:
    """Return who has no value. Not at random: younger people are measured less often."""
    weight = np.where(age < np.median(age), 1.4, 0.6)
    return np.asarray(draw.random(len(age)) < share * weight)


def write_records(path: Path, country: Country, body: People, first: int) -> None:
    """Write a file in the country's own layout; patient numbers count from `first`."""
    layout = country.layout
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, delimiter=layout.delimiter, lineterminator="\n")
        if layout.header:
            writer.writerow(layout.columns.values())
        texts = [[_text(layout, name, value) for value in body[name]] for name in FEATURES]
        for row, values in enumerate(zip(*texts, strict=True)):
            writer.writerow([patient(country, first + row), *values])


def patient(country: Country, number: int) -> str:
    """Return a patient id."""
    return f"{country.code}-{number:06d}"


def _text(layout: Layout, name: str, value: float) -> str:
    if np.isnan(value):
        return layout.missing
    if name == "male":
        return layout.sexes[int(value)]
    return layout.truth[int(value)] if name in YES_NO else f"{value:.{DECIMALS.get(name, 0)}f}"


def write_dictionary(path: Path, country: Country) -> None:
    """Write the data dictionary that explains the country's file."""
    layout = country.layout
    dictionary = {
        "dictionary": 1,
        "title": f"Cardiovascular register, {country.authority} (invented)",
        "header": layout.header,
        **({} if layout.header else {"columns": list(layout.columns.values())}),
        "delimiter": layout.delimiter,
        "missing": [layout.missing],
        "patient": layout.columns["patient"],
        "features": [_entry(layout, name) for name in FEATURES],
    }
    path.write_text(yaml.safe_dump(dictionary, sort_keys=False), encoding="utf-8")


def _entry(layout: Layout, name: str) -> dict[str, object]:
    column = {"column": layout.columns[name]}
    if name == "male":
        sexes = dict(zip(layout.sexes, ("female", "male"), strict=True))
        return {"name": "sex", **column, "type": "categorical", "codes": sexes}
    if name in YES_NO:
        codes = dict(zip(layout.truth, (False, True), strict=True))
        return {"name": name, **column, "type": "boolean", "codes": codes}
    bounds = {"unit": UNITS[name], "bounds": list(BOUNDS[name])}
    return {"name": name, **column, "type": "numeric", **bounds}


def write_opt_outs(path: Path, country: Country) -> None:
    """Write the list of patients who opted out of secondary use."""
    draw = np.random.default_rng([SEED, zlib.crc32(f"{country.code}/opted-out".encode())])
    chosen = np.flatnonzero(draw.random(country.patients) < OPTED_OUT)
    lines = [
        "# patients who opted out of secondary use",
        *(patient(country, int(i)) for i in chosen),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
