"""Tasks are prepared once for each version of the records, and name the version."""

import gc
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any
from weakref import ref

import pytest

from client.records.store import RecordStore
from client.tasks import prepared as module
from client.tasks.assignment import Assignment
from client.tasks.prepared import MAX_ASSIGNMENTS, PreparedTasks
from governance.documents.study import Study
from tests.support.documents import agreement, study
from tests.support.node_federation import records

SPLIT = b"s" * 32


@pytest.fixture
def tasks(record_store: RecordStore) -> PreparedTasks:
    return PreparedTasks(record_store, (), SPLIT, country="DK")


def test_a_task_comes_with_the_version_of_its_records(
    record_store: RecordStore,
    tasks: PreparedTasks,
    asked_study: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Records that are read again during the preparation count for the next task only."""
    inner, first = Assignment.prepare, record_store.records().version
    tender = Thread(target=record_store.refresh)

    def slowly(*args: Any, **kwargs: Any) -> Assignment:
        (tmp_path / "records.csv").write_text(records(10))
        tender.start()
        return inner(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Assignment, "prepare", slowly)
        prepared = tasks.prepared(asked_study)
    tender.join()
    assert (prepared.version, prepared.assignment.cohort.patients) == (first, 79)
    after = tasks.prepared(asked_study)
    assert (after.version, after.assignment.cohort.patients) == (record_store.records().version, 9)
    assert after.version != first


def test_an_assignment_is_prepared_once_for_a_version(
    record_store: RecordStore, tasks: PreparedTasks, tmp_path: Path, asked_study: Study
) -> None:
    first = tasks.prepared(asked_study)
    assert tasks.prepared(asked_study) is first
    (tmp_path / "records.csv").write_text(records(60))
    record_store.refresh()
    assert tasks.prepared(asked_study) is not first


def test_old_assignments_are_dropped(tasks: PreparedTasks) -> None:
    agreed = agreement()
    for number in range(MAX_ASSIGNMENTS + 3):
        tasks.prepared(study(agreed, id=f"study-{number}"))
    assert len(tasks._prepared) == MAX_ASSIGNMENTS


@pytest.mark.parametrize("readable", [True, False])
def test_former_records_are_not_kept_in_memory(
    record_store: RecordStore,
    tasks: PreparedTasks,
    asked_study: Study,
    tmp_path: Path,
    readable: bool,
) -> None:
    """A patient who has opted out since may be in them."""
    former = ref(tasks.prepared(asked_study).assignment)
    tasks.forget_former_records()
    assert former() is not None
    (tmp_path / "opt-out.txt").write_text("p1\np2\n")
    (tmp_path / "records.csv").write_text(records() if readable else "broken")
    record_store.refresh()
    assert "p2" not in record_store.records().ids
    tasks.forget_former_records()
    gc.collect()
    assert former() is None


@pytest.mark.parametrize("numbered", [False, True])
def test_row_numbers_get_another_split_for_each_run_and_version_of_the_records(
    record_store: RecordStore, asked_study: Study, numbered: bool
) -> None:
    """The proof for row numbers needs it, however costs add up; real ids keep their split."""
    read = replace(record_store.records(), numbered=numbered)
    labels = {
        module._split_label(asked_study, replace(read, version=version), run)
        for version in ("one", "two")
        for run in ("a", "b")
    }
    assert len(labels) == (4 if numbered else 1)
    assert all(label.startswith(asked_study.digest) for label in labels)
