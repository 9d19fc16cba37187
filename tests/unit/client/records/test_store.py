"""Records in memory: read when a file changes, never while a message waits."""

import os
from collections.abc import Collection
from pathlib import Path

import pytest

from client.errors import RecordFault
from client.records.csv_source import CsvSource
from client.records.source import Records
from client.records.store import RecordStore, records_unusable
from client.settings import NodeSettings
from governance.documents.study import Study
from protocols.errors import ReasonCode
from tests.support.node_federation import DICTIONARY, records


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


BAD = {
    "an unlisted code": records(12) + "x,50,Q,1\n",
    "a patient on two lines": records(12) + "p3,50,F,1\n",
    "a text for a number": records(12) + "x,abc,F,1\n",
    "a field too many": records(12) + "x,50,F,1,9\n",
    "no id": records(12) + ",50,F,1\n",
    "no CSV": records(12) + 'x,50,F,"1\n',
    "another header": "broken",
    "no header": "",
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_content_that_cannot_be_used_leaves_the_records_that_were_loaded_last(
    record_store: RecordStore, tmp_path: Path, asked_study: Study, content: str
) -> None:
    before = record_store.records()
    (tmp_path / "records.csv").write_text(content)
    (tmp_path / "dictionary.yaml").write_text(DICTIONARY.replace("age,", "age, unit: weeks,"))
    record_store.refresh()
    assert record_store.records() is before
    assert record_store.fault is not None
    record_store.require_fit(asked_study)  # by the dictionary of those records


def test_who_opts_out_later_leaves_the_records_that_were_loaded_last(
    record_store: RecordStore, tmp_path: Path
) -> None:
    before = record_store.records()
    (tmp_path / "records.csv").write_text("broken")
    (tmp_path / "opt-out.txt").write_text("p1\np2\n")
    record_store.refresh()
    kept = record_store.records()
    assert set(before.ids) - set(kept.ids) == {"p2"}
    assert kept.version == before.version
    assert all(len(column) == kept.patients for column in kept.columns.values())
    assert kept.columns["age"].tolist() == [
        age for age, patient in zip(before.columns["age"], before.ids, strict=True)
        if patient != "p2"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["records.csv", "dictionary.yaml", "opt-out.txt"])
def test_what_can_be_judged_without_a_record_stops_every_reply(
    record_store: RecordStore, tmp_path: Path, name: str
) -> None:
    kept = (tmp_path / name).read_text()
    (tmp_path / name).unlink()
    record_store.refresh()
    assert record_store.version is None
    with pytest.raises(RecordFault):
        record_store.records()
    (tmp_path / name).write_text(kept)
    if name != "records.csv":
        (tmp_path / "records.csv").write_text("broken")
    record_store.refresh()
    assert record_store.records().patients == 79


def test_without_any_load_there_is_nothing_to_go_on_with(
    settings: NodeSettings, tmp_path: Path
) -> None:
    (tmp_path / "records.csv").write_text("id,age,sex,disease\nx,abc,F,1\n")
    store = RecordStore(settings)
    store.refresh()
    assert (store.loaded, store.version) == (False, None)
    assert store.fault is not None
    assert "line 2" in store.fault.what
    assert store.described


def test_a_reading_that_lasts_keeps_nobody_waiting(
    record_store: RecordStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked_study: Study
) -> None:
    before, read, seen = record_store.records(), CsvSource.read, []

    def slow(source: CsvSource, opted_out: Collection[str] = ()) -> Records:
        record_store.require_fit(asked_study)
        seen.append(record_store.records())
        return read(source, opted_out)

    monkeypatch.setattr(CsvSource, "read", slow)
    (tmp_path / "records.csv").write_text(records(12))
    record_store.refresh()
    assert seen == [before]
    assert record_store.records().patients == 11


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
    settings: NodeSettings, tmp_path: Path, asked_study: Study
) -> None:
    (tmp_path / "records.csv").write_text("broken")
    store = RecordStore(settings)
    store.refresh()
    store.require_fit(asked_study)


def test_the_refusal_of_unusable_records_does_not_describe_them() -> None:
    refusal = records_unusable()
    assert refusal.code is ReasonCode.DECLINED
    assert "doctor" in refusal.fix
