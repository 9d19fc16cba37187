"""`pratique-node calibrate` on a node of a federation; attacks are in tests/attacks."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from client.commands.calibration_file import Calibration, report_lines
from governance.documents.study import Study
from protocols.tasks import Training
from protocols.tasks.baselines import CountryBaselines
from protocols.tasks.training import sigmoid
from tests.support.documents import COUNTRIES, agreement, study_fields
from tests.support.node_federation import NodeFederation, log_lines
from tests.support.released_models import (
    SCALE,
    SHIFT,
    calibrated,
    give_records,
    permitted,
    released,
    shifted_rows,
    trained,
    weights_of,
)


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[NodeFederation]:
    nodes = NodeFederation(tmp_path / "federation")
    yield nodes
    nodes.close()


@pytest.fixture
def study(federation: NodeFederation) -> Study:
    return permitted(federation, federation.study(**trained()))


def predictions(study: Study, rows: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return what the model predicts for each row, and who is ill."""
    values = [row.split(",") for row in rows]
    columns = {
        "age": np.array([float(value[1]) for value in values]),
        "sex": np.array([float("FM".index(value[2])) for value in values]),
    }
    assert isinstance(study.task, Training)
    outputs = study.task.rows(study.features, columns) @ weights_of(study)
    return sigmoid(outputs), np.array([float(value[3]) for value in values])


def test_a_country_with_a_shifted_baseline_is_calibrated_in_the_large(
    federation: NodeFederation, study: Study, tmp_path: Path
) -> None:
    """Applied by its formula to all patients of the country, those that trained included."""
    node, rows = federation.nodes["DK"], shifted_rows(study, 6_000)
    give_records(node, rows)
    calibration = calibrated(node, released(study, tmp_path / "result")).calibration
    assert isinstance(calibration.intercept, float)
    assert isinstance(calibration.intercept_error, float)
    assert abs(calibration.intercept - SHIFT) < 3 * calibration.intercept_error
    assert abs(calibration.slope - SCALE) < 3 * calibration.slope_error
    p, ill = predictions(study, rows)
    logits = np.log(p / (1 - p))
    after = 1 / (1 + np.exp(-(calibration.intercept + calibration.slope * logits)))
    assert ill.mean() - p.mean() > 0.1
    assert abs(ill.mean() - after.mean()) < 0.025


def test_the_file_says_what_it_is_of(
    federation: NodeFederation, study: Study, tmp_path: Path
) -> None:
    node, source = federation.nodes["DK"], released(study, tmp_path / "result")
    give_records(node, shifted_rows(study))
    written = calibrated(node, source / "result.json")
    stored = Calibration.model_validate_json(written.path.read_text())
    assert stored == written.calibration
    assert (stored.study_id, stored.study, stored.country) == (study.id, study.digest, "DK")
    assert stored.records == node.parts.record_store.version
    assert (
        stored.permit == node.parts.documents.own(federation.clock()).permits[study.digest].digest
    )
    assert "held out of training" in stored.fitted_on
    assert stored.notes == ()


def test_entries_that_match_nobody_are_named_beside_the_file(
    federation: NodeFederation, study: Study, tmp_path: Path
) -> None:
    (tmp_path / "opt-outs").write_text("P1\n")
    node = federation.nodes["DK"]
    give_records(node, shifted_rows(study))
    settings = federation.settings("DK", opt_out=tmp_path / "opt-outs")
    written = calibrated(
        federation.restart("DK", settings=settings), released(study, tmp_path / "result")
    )
    assert written.unconfirmed == 1
    assert "you have not confirmed them" in "\n".join(report_lines(written))


def test_a_study_with_a_countrys_own_baseline(tmp_path: Path) -> None:
    """The agreement and every permit allow `by_country`; DK took part in no round."""
    nodes = NodeFederation(tmp_path / "federation", changes={"by_country": True})
    country = {"name": "country", "type": "categorical", "levels": list(COUNTRIES)}
    features = [*study_fields(agreement())["features"], country]
    study = nodes.study(**trained(by_country=True), features=features)
    permitted(nodes, study, by_country=True)
    node = nodes.nodes["DK"]
    baselines = CountryBaselines(countries=("EE", "NO", "PT"))
    written = calibrated(node, released(study, tmp_path / "result", baselines=baselines))
    assert written.calibration.patients > 0
    assert '"kind":"model-calibrated"' in log_lines(node)[-1]
    nodes.close()


def test_the_log_is_whole_and_the_state_is_signed(
    federation: NodeFederation, study: Study, tmp_path: Path
) -> None:
    node = federation.nodes["DK"]
    give_records(node, shifted_rows(study))
    calibrated(node, released(study, tmp_path / "result"))
    node.parts.log_head.move()
    node.check_state()
