"""The world of real data: four hospitals in four places, each of which acts as a country.

UCI heart disease, CC BY 4.0: Cleveland (US), Budapest (HU), Zurich and Basel (CH), Long Beach
(US). Two hospitals are in one country, and a country has one node, so Long Beach has the code XA,
which ISO 3166-1 leaves to its users. Principal investigators: A. Janosi, W. Steinbrunn,
M. Pfisterer, R. Detrano.
"""

import random
from dataclasses import dataclass
from pathlib import Path

from demo.registers import read_training
from demo.world import DOCUMENTS, Site, Terms, World

TRAINING_STUDY = "hospital-heart-disease"
HISTOGRAM_STUDY = "hospital-chest-pain"
DICTIONARY = DOCUMENTS / "hospital-dictionary.yaml"
SEED = 2026
HELD_OUT = 0.3
TERMS = Terms(
    federation="angiography",
    title="Agreement on learning together from angiography registers",
    register="angiography",
    delta=1e-4,
    order=8,
    budget_epsilon=3.0,
    smallest_cohort=20,
    cohort_epsilon=0.75,
    youngest=20,
)


@dataclass(frozen=True)
class Hospital:
    """A hospital's file, and the code of the country that the hospital acts as."""

    country: str
    authority: str
    file: str


HOSPITALS = (
    Hospital("US", "Cleveland Clinic Foundation", "processed.cleveland.data"),
    Hospital("HU", "Hungarian Institute of Cardiology, Budapest", "processed.hungarian.data"),
    Hospital("CH", "University Hospitals of Zurich and Basel", "processed.switzerland.data"),
    Hospital("XA", "V.A. Medical Center, Long Beach", "processed.va.data"),
)


class DataMissing(Exception):
    """The folder does not contain the hospitals' files."""


def four_hospitals(folder: Path, data: Path) -> World:
    """Read the hospitals' files from `data`, hold out a part of each, and return their world.

    Raises DataMissing if a file is missing.
    """
    sites = [_site(folder, data, hospital) for hospital in HOSPITALS]
    places = ", ".join(f"{each.country} {each.authority}" for each in HOSPITALS)
    features, task = read_training(TRAINING_STUDY)
    return World(folder, places, sites, TERMS, TRAINING_STUDY, HISTOGRAM_STUDY, features, task)


def _site(folder: Path, data: Path, hospital: Hospital) -> Site:
    home = folder / "data" / hospital.country
    home.mkdir(parents=True)
    records, newcomers = home / "records.csv", home / "newcomers.csv"
    held_out, training = _split(_lines(data / hospital.file), hospital.country)
    records.write_text("".join(training), encoding="utf-8")
    newcomers.write_text("".join(held_out), encoding="utf-8")
    return Site(hospital.country, hospital.authority, records, DICTIONARY, newcomers)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise DataMissing(
            f"{path} is missing; DATA must name a folder with "
            f"{', '.join(hospital.file for hospital in HOSPITALS)}"
        )
    return [f"{line}\n" for line in path.read_text(encoding="utf-8").splitlines() if line]


def _split(lines: list[str], country: str) -> tuple[list[str], list[str]]:
    draw = random.Random(f"{SEED} {country}")  # noqa: S311 (which patients are held out)
    shuffled = draw.sample(lines, len(lines))
    count = round(HELD_OUT * len(lines))
    return shuffled[:count], shuffled[count:]
