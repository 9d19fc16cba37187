"""Records in memory: read when a file changes, never while a message waits."""

import os
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from client.errors import RecordFault
from client.records.store import MOST_ASSIGNMENTS, RecordStore, records_unusable
from client.settings import NodeSettings
from client.tasks.registry import Assignment
from governance.documents.study import Study
from protocols.errors import ReasonCode
from tests.support.documents import agreement, raw_key, study
from tests.support.node_federation import DICTIONARY, records

SPLIT = b"s" * 32


@pytest.fixture
def settings(tmp_path: Path) -> NodeSettings:
    (tmp_path / "records.csv").write_text(records())
    (tmp_path / "dictionary.yaml").write_text(DICTIONARY)
    (tmp_path / "opt-out.txt").write_text("p1\n")
    return NodeSettings(
        country="DK",
        data=tmp_path / "records.csv",
        dictionary=tmp_path / "dictionary.yaml",
        opt_out=tmp_path / "opt-out.txt",
        officer_key=raw_key(5).public.to_text(),
    )


@pytest.fixture
def record_store(settings: NodeSettings) -> RecordStore:
    made = RecordStore(settings, SPLIT)
    made.refresh()
    return made


@pytest.fixture
def asked() -> Study:
    return study(agreement())


def test_a_task_comes_with_the_version_of_the_records_it_is_of(
    record_store: RecordStore, asked: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records read again while the task is prepared belong to the next one, version and all."""
    inner, first = Assignment.prepare, record_store.records().version
    tender = Thread(target=record_store.refresh)

    def slowly(*args: Any, **kwargs: Any) -> Assignment:
        (tmp_path / "records.csv").write_text(records(10))
        tender.start()
        return inner(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Assignment, "prepare", slowly)
        prepared = record_store.prepared(asked)
    tender.join()
    assert (prepared.version, prepared.assignment.cohort.patients) == (first, 79)
    after = record_store.prepared(asked)
    assert (after.version, after.assignment.cohort.patients) == (record_store.records().version, 9)
    assert after.version != first


def test_nothing_is_held_before_the_first_reading(settings: NodeSettings, asked: Study) -> None:
    made = RecordStore(settings, SPLIT)
    assert (made.described, made.version) == (False, None)
    with pytest.raises(RecordFault):
        made.records()
    with pytest.raises(RecordFault):
        made.require_fit(asked)


def test_records_are_read_without_those_who_opted_out(record_store: RecordStore) -> None:
    assert record_store.records().patients == 79
    assert "p1" not in record_store.records().ids


def test_unchanged_files_are_not_read_again(
    record_store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = record_store.records()
    monkeypatch.setattr(RecordStore, "_read", lambda _: pytest.fail("read again"))
    record_store.refresh()
    assert record_store.records() is held


@pytest.mark.parametrize("name", ["records.csv", "dictionary.yaml", "opt-out.txt"])
def test_a_changed_file_is_read_again(record_store: RecordStore, tmp_path: Path, name: str) -> None:
    held = record_store.records()
    file = tmp_path / name
    file.write_text(file.read_text() + "\n")
    os.utime(file, ns=(1, 1))
    record_store.refresh()
    assert record_store.records() is not held


def test_a_file_that_went_bad_leaves_no_records(record_store: RecordStore, tmp_path: Path) -> None:
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


def test_a_file_that_is_mended_is_read(record_store: RecordStore, tmp_path: Path) -> None:
    (tmp_path / "records.csv").write_text("broken")
    record_store.refresh()
    (tmp_path / "records.csv").write_text(records(12))
    record_store.refresh()
    assert record_store.fault is None
    assert record_store.records().patients == 11


def test_whether_a_study_fits_is_told_by_the_dictionary_alone(
    record_store: RecordStore, tmp_path: Path, asked: Study
) -> None:
    record_store.require_fit(asked)
    (tmp_path / "records.csv").write_text("broken")
    record_store.refresh()
    record_store.require_fit(asked)


def test_an_assignment_is_prepared_once_for_a_version(
    record_store: RecordStore, tmp_path: Path, asked: Study
) -> None:
    first = record_store.prepared(asked)
    assert record_store.prepared(asked) is first
    (tmp_path / "records.csv").write_text(records(60))
    record_store.refresh()
    assert record_store.prepared(asked) is not first


def test_old_assignments_are_let_go(record_store: RecordStore) -> None:
    agreed = agreement()
    for number in range(MOST_ASSIGNMENTS + 3):
        record_store.prepared(study(agreed, id=f"study-{number}"))
    assert len(record_store._prepared) == MOST_ASSIGNMENTS


def test_the_refusal_of_unusable_records_tells_nothing_of_them() -> None:
    refusal = records_unusable()
    assert refusal.code is ReasonCode.DECLINED
    assert "doctor" in refusal.fix
