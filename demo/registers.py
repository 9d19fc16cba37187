"""The world of invented data: four countries and their cardiovascular registers."""

from pathlib import Path
from string import Template
from typing import Any

import yaml

from demo.population import (
    COUNTRIES,
    NEWCOMERS,
    TRAINING,
    Country,
    people,
    write_dictionary,
    write_opt_outs,
    write_records,
)
from demo.world import DOCUMENTS, Site, Terms, World
from protocols.tasks import Feature, TrainGlm
from server.services.drafts import preliminary

TRAINING_STUDY = "heart-admissions"
HISTOGRAM_STUDY = "blood-pressure"
NEWCOMERS_EACH = 2500
"""How many people of each country no node reads; the table at the end is computed on them."""
TERMS = Terms(
    federation="northwest",
    title="Agreement on learning together from cardiovascular registers",
    register="cardiovascular",
    delta=1e-5,
    order=12,
    budget_epsilon=3.0,
    smallest_cohort=500,
    cohort_epsilon=0.25,
    youngest=40,
)


def four_countries(folder: Path) -> World:
    """Write the files of all four countries and return their world."""
    sites = [_site(folder, country) for country in COUNTRIES]
    total = sum(country.patients for country in COUNTRIES)
    about = f"{total:,} invented patients in {', '.join(site.country for site in sites)}"
    features, task = read_training(TRAINING_STUDY)
    return World(folder, about, sites, TERMS, TRAINING_STUDY, HISTOGRAM_STUDY, features, task)


def _site(folder: Path, country: Country) -> Site:
    home = folder / "data" / country.code
    home.mkdir(parents=True)
    site = Site(
        country=country.code,
        authority=country.authority,
        records=home / "records.csv",
        dictionary=home / "dictionary.yaml",
        newcomers=home / "newcomers.csv",
        opted_out=home / "opted-out.txt",
    )
    write_records(site.records, country, people(country, TRAINING, country.patients), first=0)
    newcomers = people(country, NEWCOMERS, NEWCOMERS_EACH)
    write_records(site.newcomers, country, newcomers, first=country.patients)
    write_dictionary(site.dictionary, country)
    write_opt_outs(home / "opted-out.txt", country)
    return site


def read_training(name: str) -> tuple[tuple[Feature, ...], TrainGlm]:
    """Return the features and the task of a training study's document.

    What the document leaves to `study check` is preliminary; predictions do not depend on it.
    """
    text = (DOCUMENTS / f"{name}.yaml").read_text(encoding="utf-8")
    study: dict[str, Any] = yaml.safe_load(Template(text).safe_substitute(expires="2030-01-01"))
    features = tuple(Feature.model_validate(fields) for fields in study["features"])
    return features, TrainGlm.model_validate(preliminary(study["task"]))
