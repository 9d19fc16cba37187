"""The synthetic patients: the same on every machine, different in every country."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from client.records.csv_source import CsvSource
from client.records.dictionary import read_dictionary
from client.records.opt_outs import read_opt_outs
from client.records.source import Records
from demo.population import (
    BOUNDS,
    COUNTRIES,
    FEATURES,
    NEWCOMERS,
    TRAINING,
    YES_NO,
    Country,
    People,
    patient,
    people,
    write_dictionary,
    write_opt_outs,
    write_records,
)

every_country = pytest.mark.parametrize("country", COUNTRIES, ids=lambda country: country.code)


def everybody(country: Country) -> People:
    return people(country, TRAINING, country.patients)


def read_back(folder: Path, country: Country) -> tuple[People, Records]:
    body = everybody(country)
    write_records(folder / "records.csv", country, body, first=0)
    write_dictionary(folder / "dictionary.yaml", country)
    write_opt_outs(folder / "opted-out.txt", country)
    source = CsvSource(folder / "records.csv", read_dictionary(folder / "dictionary.yaml"))
    return body, source.read(read_opt_outs(folder / "opted-out.txt"))


@every_country
def test_a_country_is_the_same_every_time(country: Country, tmp_path: Path) -> None:
    digests = set()
    for turn in ("once", "again"):
        path = tmp_path / turn
        write_records(path, country, everybody(country), first=0)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


@every_country
def test_added_patients_do_not_change_the_others(country: Country) -> None:
    count = 500
    here, there = people(country, TRAINING, count), people(country, NEWCOMERS, count)
    same = np.mean([here[name] == there[name] for name in ("bmi", "age", "ldl")], axis=1)
    assert (same < 0.2).all()


def test_countries_have_different_patients() -> None:
    bodies = [people(country, TRAINING, 100)["bmi"] for country in COUNTRIES]
    for i, one in enumerate(bodies):
        assert not any(np.array_equal(one, other) for other in bodies[i + 1 :])


@every_country
def test_every_column_is_there_for_every_patient(country: Country) -> None:
    body = everybody(country)
    assert set(body) == set(FEATURES)
    assert {len(column) for column in body.values()} == {country.patients}
    assert 3_000 <= country.patients <= 10_000


@every_country
def test_missing_values_are_as_frequent_as_the_country_declares(country: Country) -> None:
    body = everybody(country)
    for name in FEATURES:
        share = np.isnan(body[name]).mean()
        assert share == pytest.approx(country.unrecorded.get(name, 0), abs=0.02)


@every_country
def test_young_patients_are_measured_less_often(country: Country) -> None:
    body = everybody(country)
    young = body["age"] < np.median(body["age"])
    absent = np.isnan(body["hba1c"])
    assert absent[young].mean() > 1.5 * absent[~young].mean()


def test_populations_differ() -> None:
    bodies = {country.code: everybody(country) for country in COUNTRIES}
    ages = {code: body["age"].mean() for code, body in bodies.items()}
    assert ages["PT"] - ages["IE"] > 8
    assert bodies["IE"]["male"].mean() - bodies["EE"]["male"].mean() > 0.05
    risks = {code: body["admitted"].mean() for code, body in bodies.items()}
    assert risks["EE"] > 1.8 * risks["DK"]
    assert all(0.08 < risk < 0.4 for risk in risks.values())


def test_yes_and_no_are_one_and_zero() -> None:
    body = people(COUNTRIES[0], TRAINING, 1000)
    for name in YES_NO:
        assert set(np.unique(body[name])) == {0.0, 1.0}


def test_the_risk_depends_on_the_risk_factors() -> None:
    body = everybody(COUNTRIES[3])
    attacked = body["heart_attack"] == 1
    assert body["admitted"][attacked].mean() > 1.5 * body["admitted"][~attacked].mean()
    old = body["age"] > 75
    assert body["admitted"][old].mean() > 1.5 * body["admitted"][~old].mean()


@every_country
def test_nearly_all_values_are_within_their_public_bounds(country: Country) -> None:
    body = everybody(country)
    for name, (low, high) in BOUNDS.items():
        column = body[name][~np.isnan(body[name])]
        assert ((column < low) | (column > high)).mean() < 0.01


@every_country
def test_a_node_reads_back_what_was_written(country: Country, tmp_path: Path) -> None:
    body, records = read_back(tmp_path, country)
    included = np.array(
        [patient(country, row) in set(records.ids) for row in range(country.patients)]
    )
    assert records.patients == included.sum()
    for name in FEATURES:
        theirs = records.columns["sex" if name == "male" else name]
        np.testing.assert_allclose(theirs, body[name][included], atol=1e-9)


@every_country
def test_patients_who_opted_out_are_in_the_file_and_not_in_the_records(
    country: Country, tmp_path: Path
) -> None:
    _, records = read_back(tmp_path, country)
    opted_out = set(read_opt_outs(tmp_path / "opted-out.txt"))
    assert 0.005 < len(opted_out) / country.patients < 0.03
    assert records.report.unknown_opt_outs == ()
    assert records.report.opted_out == len(opted_out)
    assert not opted_out & set(records.ids)


def test_each_country_has_a_different_file_format(tmp_path: Path) -> None:
    heads = set()
    for country in COUNTRIES:
        write_records(tmp_path / "r.csv", country, people(country, TRAINING, 20), first=0)
        heads.add((tmp_path / "r.csv").read_text().splitlines()[0])
    assert len(heads) == len(COUNTRIES)
    assert len({country.layout.delimiter for country in COUNTRIES}) > 1
    assert len({country.layout.missing for country in COUNTRIES}) == len(COUNTRIES)
