"""Records in memory: read when a file changes, never while a message waits."""

import os
from pathlib import Path

import pytest

from client.errors import RecordFault
from client.records.store import RecordStore, records_unusable
from client.settings import NodeSettings
from governance.documents.study import Study
from protocols.errors import ReasonCode
from tests.support.node_federation import records


def test_there_are_no_records_before_the_first_reading(
    settings: NodeSettings, asked_study: Study
) -> None:
    store = RecordStore(settings)
    assert (store.described, store.version) == (False, None)
    with pytest.raises(RecordFault):
        store.records()
    with pytest.raises(RecordFault):
        store.require_fit(asked_study)


def test_records_are_read_without_opted_out_patients(record_store: RecordStore) -> None:
    assert record_store.records().patients == 79
    assert "p1" not in record_store.records().ids


def test_unchanged_files_are_not_read_again(
    record_store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = record_store.records()
    monkeypatch.setattr(RecordStore, "_read", lambda _: pytest.fail("read again"))
    record_store.refresh()
    assert record_store.records() is records
    assert record_store.readings == 1


@pytest.mark.parametrize("name", ["records.csv", "dictionary.yaml", "opt-out.txt"])
def test_a_changed_file_is_read_again(record_store: RecordStore, tmp_path: Path, name: str) -> None:
    records = record_store.records()
    file = tmp_path / name
    file.write_text(file.read_text() + "\n")
    os.utime(file, ns=(1, 1))
    record_store.refresh()
    assert record_store.records() is not records
    assert record_store.readings == 2


def test_a_file_that_became_unreadable_leaves_no_records(
    record_store: RecordStore, tmp_path: Path
) -> None:
    (tmp_path / "records.csv").write_text("id,age,sex,disease\nx,abc,F,1\n")
    record_store.refresh()
    assert record_store.version is None
    assert record_store.fault is not None
    assert "line 2" in record_store.fault.what
    with pytest.raises(RecordFault):
        record_store.records()
    assert record_store.described


def test_a_missing_opt_out_list_is_not_an_empty_one(
    record_store: RecordStore, tmp_path: Path
) -> None:
    (tmp_path / "opt-out.txt").unlink()
    record_store.refresh()
    assert record_store.fault is not None
    with pytest.raises(RecordFault):
        record_store.records()


def test_a_corrected_file_is_read(record_store: RecordStore, tmp_path: Path) -> None:
    (tmp_path / "records.csv").write_text("broken")
    record_store.refresh()
    (tmp_path / "records.csv").write_text(records(12))
    record_store.refresh()
    assert record_store.fault is None
    assert record_store.records().patients == 11


def test_the_dictionary_alone_decides_whether_a_study_fits(
    record_store: RecordStore, tmp_path: Path, asked_study: Study
) -> None:
    record_store.require_fit(asked_study)
    (tmp_path / "records.csv").write_text("broken")
    record_store.refresh()
    record_store.require_fit(asked_study)


def test_the_refusal_of_unusable_records_does_not_describe_them() -> None:
    refusal = records_unusable()
    assert refusal.code is ReasonCode.DECLINED
    assert "doctor" in refusal.fix
