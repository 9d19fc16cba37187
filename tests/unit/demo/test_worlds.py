"""The two worlds: files on disk, valid documents, and the quality of a pooled model."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import TypeAdapter

from client.records.csv_source import CsvSource
from client.records.dictionary import read_dictionary
from demo.hospitals import DICTIONARY, HOSPITALS, DataMissing, four_hospitals
from demo.reference import (
    exact_figures,
    newcomers,
    pooled_model,
    predict,
    quality,
    read_predictions,
    write_study_csv,
)
from demo.registers import four_countries
from demo.world import World, write_documents
from governance.documents.models import Country
from governance.documents.reading import read_document
from governance.documents.study import Study
from protocols.tasks import Family
from server.learning.evaluate import SCORE_PANELS
from server.learning.predict import predict_file
from server.services.drafts import preliminary

NOW = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
AGREEMENT = f"sha256:{'0' * 64}"
ROWS = {"processed.cleveland.data": 30, "processed.hungarian.data": 20}


@pytest.fixture(scope="module")
def registers(tmp_path_factory: pytest.TempPathFactory) -> World:
    return four_countries(tmp_path_factory.mktemp("registers"))


@pytest.fixture
def hospital_files(tmp_path: Path) -> Path:
    folder = tmp_path / "heart"
    folder.mkdir()
    for number, hospital in enumerate(HOSPITALS):
        rows = ROWS.get(hospital.file, 10)
        lines = [_row(100 * number + row) for row in range(rows)]
        (folder / hospital.file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _row(number: int) -> str:
    age, sick = 30 + number % 50, number % 3
    return f"{age},{number % 2},{1 + number % 4},120,?,0,1,150,0,1.5,2,?,?,{sick}"


def studies(folder: Path) -> list[Study]:
    def complete(values: Mapping[str, Any]) -> dict[str, Any]:
        given = {"agreement": AGREEMENT, "created": NOW.isoformat()}
        return {**given, **values, "task": preliminary(values["task"])}

    paths = [path for path in folder.glob("*.yaml") if path.stem != "agreement"]
    texts = [(path.read_bytes(), path.name) for path in paths]
    return [read_document(Study, text, name, complete=complete) for text, name in texts]


def test_the_registers_documents_are_valid_studies(registers: World) -> None:
    folder = write_documents(registers, NOW)
    by_id = {study.id: study for study in studies(folder)}
    assert set(by_id) == {"heart-admissions", "blood-pressure", "insurance-premiums"}
    training = by_id["heart-admissions"]
    assert training.features == registers.features
    assert training.task == registers.task
    assert set(training.countries) == set(registers.countries)


def test_documents_are_dated_from_today(registers: World, tmp_path: Path) -> None:
    world = World(**{**vars(registers), "folder": tmp_path})
    agreement = yaml.safe_load((write_documents(world, NOW) / "agreement.yaml").read_text())
    assert str(agreement["effective"]) == "2026-11-19"
    assert str(agreement["sunset"]) == "2027-11-20"
    assert [party["country"] for party in agreement["parties"]] == list(registers.countries)


def test_pooling_learns_from_the_registers(registers: World) -> None:
    people = newcomers(registers)
    truth = people["admitted"]
    measured = quality(predict(registers, pooled_model(registers), people), truth)
    assert measured.auc > 0.80
    assert measured.accuracy > 1 - truth.mean()


def test_predict_reads_the_files_of_the_demo(registers: World, tmp_path: Path) -> None:
    people = newcomers(registers)
    weights = pooled_model(registers)
    inputs = registers.task.input_features(registers.features)
    write_study_csv(tmp_path / "people.csv", inputs, people)
    predictions = predict_file(registers.task, registers.features, weights, tmp_path / "people.csv")
    (tmp_path / "scored.csv").write_text(
        "\n".join(",".join(row) for row in [predictions.header, *predictions.rows]) + "\n",
        encoding="utf-8",
    )
    scored = read_predictions(tmp_path / "scored.csv", "admitted")
    np.testing.assert_allclose(scored, predict(registers, weights, people), atol=1e-5)


def test_quality_of_perfect_reversed_and_constant_scores() -> None:
    truth = np.array([0.0, 0.0, 1.0, 1.0])
    assert quality(np.array([0.1, 0.2, 0.8, 0.9]), truth).auc == 1
    assert quality(np.array([0.9, 0.8, 0.2, 0.1]), truth).auc == 0
    assert quality(np.full(4, 0.3), truth).auc == 0.5
    assert quality(np.full(4, 0.3), truth).accuracy == 0.5


def test_quality_counts_ties_half() -> None:
    assert quality(np.array([0.1, 0.5, 0.5]), np.array([0.0, 0.0, 1.0])).auc == 0.75


def test_exact_figures_are_those_of_the_clear_scores() -> None:
    scores, truth = np.array([0.1, 0.3, 0.5, 0.9]), np.array([0.0, 1.0, 1.0, 1.0])
    figures = exact_figures(scores, truth, (0.0, 0.4, 1.0))
    assert figures["accuracy"] == 0.75  # one half counts as yes
    assert figures["auc"] == 1
    assert figures["calibration_in_the_large"] == pytest.approx(0.3)
    # the gaps of the two bins are (1 - 0.4) and (2 - 1.4), of four patients
    assert figures["expected_calibration_error"] == pytest.approx(1.2 / 4)


def test_exact_figures_have_the_names_of_the_released_ones() -> None:
    released = SCORE_PANELS[Family.LOGISTIC]
    figures = exact_figures(np.array([0.2, 0.7]), np.array([0.0, 1.0]), (0.0, 0.5, 1.0))
    assert set(figures) == set(released)


def test_hospitals_are_four_countries_with_valid_codes(
    hospital_files: Path, tmp_path: Path
) -> None:
    world = four_hospitals(tmp_path, hospital_files)
    assert world.countries == ("CH", "HU", "US", "XA")
    for code in world.countries:
        TypeAdapter(Country).validate_python(code)


def test_no_patient_of_a_hospital_is_on_both_sides(hospital_files: Path, tmp_path: Path) -> None:
    world = four_hospitals(tmp_path, hospital_files)
    for site, hospital in zip(world.sites, HOSPITALS, strict=True):
        rows = site.records.read_text().splitlines()
        aside = site.newcomers.read_text().splitlines()
        all_rows = (hospital_files / hospital.file).read_text().splitlines()
        assert sorted(rows + aside) == sorted(all_rows)
        assert len(aside) == round(0.3 * len(all_rows))


def test_a_hospital_is_split_the_same_way_every_time(hospital_files: Path, tmp_path: Path) -> None:
    one = four_hospitals(tmp_path / "one", hospital_files)
    two = four_hospitals(tmp_path / "two", hospital_files)
    for here, there in zip(one.sites, two.sites, strict=True):
        assert here.newcomers.read_text() == there.newcomers.read_text()


def test_a_missing_hospital_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"processed\.cleveland\.data is missing"):
        four_hospitals(tmp_path, tmp_path / "nowhere")


def test_hospital_documents_are_valid_studies(hospital_files: Path, tmp_path: Path) -> None:
    world = four_hospitals(tmp_path, hospital_files)
    by_id = {study.id: study for study in studies(write_documents(world, NOW))}
    assert set(by_id) == {"heart-disease", "chest-pain", "insurance-premiums"}
    assert by_id["heart-disease"].privacy.epsilon == 1
    assert by_id["heart-disease"].privacy.delta == 1e-4


def test_an_unmeasured_cholesterol_is_missing_and_not_zero(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("52,1,4,0,0,?,0,140,1,?,2,?,?,3\n", encoding="utf-8")
    records = CsvSource(path, read_dictionary(DICTIONARY)).read()
    for name in ("resting_pressure", "cholesterol", "high_sugar", "st_depression"):
        assert np.isnan(records.columns[name]).all(), name
    assert records.columns["disease"].tolist() == [1.0]
