"""The file of a calibration: its form, and when it is written."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from client.commands.calibration_file import (
    Calibration,
    Written,
    make_private_folder,
    report_lines,
    require_writable,
    write_calibration,
)
from client.errors import NodeFault
from governance.errors import FileFault

SOME = "sha256:" + "a" * 64


def calibration(**changes: Any) -> Calibration:
    fields: dict[str, Any] = {
        "study_id": "heart",
        "study": SOME,
        "run": "c" * 32,
        "result": SOME,
        "model": SOME,
        "permit": SOME,
        "country": "DK",
        "target": "disease",
        "intercept": 0.4321,
        "slope": 0.8765,
        "intercept_error": 0.1234,
        "slope_error": 0.0678,
        "formula": "calibrated = intercept + slope * p",
        "fitted_on": "all patients",
        "patients": 654321,
        "records": SOME,
        "calibrated": datetime(2026, 9, 1, tzinfo=UTC),
    }
    return Calibration(**fields | changes)


def test_the_first_field_says_that_it_is_not_private() -> None:
    fields = json.loads(calibration().text())
    assert next(iter(fields.items())) == ("notice", "not private: never publish")
    levels = {"none": 0.0, "mild": 0.5}
    assert json.loads(calibration(intercept=levels).text())["intercept"] == levels
    assert Calibration.model_validate_json(calibration().text()) == calibration()


def test_what_the_operator_reads_has_no_figure_of_the_records() -> None:
    written = Written(Path("/x/calibration.json"), calibration(notes=("be careful",)), 1)
    text = "\n".join(report_lines(written))
    for figure in ("0.4321", "0.8765", "0.1234", "0.0678", "654321"):
        assert figure not in text
    assert "/x/calibration.json is confidential (not private: never publish)" in text
    assert "How to apply it: calibrated = intercept + slope * p." in text
    assert "Note: be careful." in text
    assert "1 entry of the opt-out list matches no patient" in text


def test_a_file_that_appears_in_the_last_moment_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    require_writable(path, replace=False)
    path.write_text("another's")
    with pytest.raises(NodeFault, match="exists already"):
        write_calibration(path, calibration(), replace=False)
    assert path.read_text() == "another's"
    with pytest.raises(NodeFault, match="not replaced"):
        write_calibration(path, calibration(), replace=True)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("replace", [False, True])
def test_a_file_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, replace: bool
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keys.files.os.fsync", full)
    with pytest.raises(FileFault, match="No space left"):
        write_calibration(tmp_path / "file", calibration(), replace=replace)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "calibrations").write_text("")
    with pytest.raises(FileFault, match="cannot be written"):
        make_private_folder(tmp_path / "calibrations" / "heart", tmp_path)
