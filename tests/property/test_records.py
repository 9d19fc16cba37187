"""A file of any content is read as declared or refused with a clear error."""

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from client.errors import RecordFault
from client.records.csv_source import CsvSource
from client.records.dictionary import DataDictionary, read_dictionary
from client.records.opt_outs import read_opt_outs
from tests.support.examples import examples

T = TypeVar("T")
DICTIONARY = DataDictionary.model_validate(
    {
        "dictionary": 1,
        "title": "A clinic",
        "missing": ["", "?"],
        "patient": "id",
        "features": [
            {"name": "age", "type": "numeric", "bounds": [0, 120]},
            {"name": "sex", "type": "categorical", "codes": {"1": "male", "2": "female"}},
        ],
    }
)
IDS = st.text(st.characters(categories=("L", "N"), codec="utf-8"), min_size=1, max_size=12)
AGES = st.one_of(st.none(), st.floats(-1e6, 1e6))
NOTES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40)
ROWS = st.lists(
    st.tuples(IDS, AGES, st.sampled_from(["1", "2", "1.0", "?"]), NOTES),
    max_size=20,
    unique_by=lambda row: row[0],
)


def in_file(name: str, data: bytes) -> tuple[TemporaryDirectory[str], Path]:
    folder = TemporaryDirectory()
    path = Path(folder.name) / name
    path.write_bytes(data)
    return folder, path


def read_or_refused(read: Callable[[], T]) -> T | None:
    """Read; a refusal must say what, why and what to do, and no other error may be raised."""
    try:
        return read()
    except RecordFault as fault:
        if not (fault.what and fault.why and fault.fix):
            raise AssertionError(f"a refusal without words: {fault!r}") from fault
        return None


@settings(max_examples=examples(60), deadline=None)
@given(ROWS)
def test_a_file_of_a_csv_writer_is_read_back(
    rows: list[tuple[str, float | None, str, str]],
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(["id", "age", "sex", "note"])
    writer.writerows(
        [patient, "" if age is None else f"{age:f}", sex, n] for patient, age, sex, n in rows
    )
    folder, path = in_file("patients.csv", text.getvalue().encode())
    with folder:
        records = CsvSource(path, DICTIONARY).read()
    assert records.ids == tuple(row[0] for row in rows)
    for (_, age, sex, _), age_found, sex_found in zip(
        rows, records.columns["age"], records.columns["sex"], strict=True
    ):
        assert (
            math.isnan(age_found)
            if age is None
            else math.isclose(age, age_found, rel_tol=1e-9, abs_tol=1e-6)
        )
        assert math.isnan(sex_found) if sex == "?" else sex_found == int(sex[0]) - 1


HOSTILE = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.sampled_from(
            [b"id,age,sex\n", b"a,1,1\n", b'"', b",", b"\n", b"\r", b"\x00", b"\xff", b"a", b"=1+1",
             b"9" * 400, b"\xef\xbb\xbf", b"?", b"'", b"id"]
        ),
        max_size=25,
    ).map(b"".join),
)  # fmt: skip


@settings(max_examples=examples(150), deadline=None)
@given(HOSTILE, st.booleans())
def test_any_bytes_are_read_or_refused(data: bytes, headed: bool) -> None:
    folder, path = in_file("patients.csv", (b"id,age,sex\n" if headed else b"") + data)
    with folder:
        records = read_or_refused(CsvSource(path, DICTIONARY).read)
    if records is not None:
        assert len(set(records.ids)) == records.patients
        assert all(len(column) == records.patients for column in records.columns.values())


@settings(max_examples=examples(100), deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200), st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace"))
    )
)
def test_any_bytes_are_a_dictionary_or_a_clear_refusal(data: bytes) -> None:
    folder, path = in_file("dictionary.yaml", data)
    with folder:
        read_or_refused(lambda: read_dictionary(path))


@settings(max_examples=examples(100), deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_of_ids_or_a_clear_refusal(data: bytes) -> None:
    folder, path = in_file("optout.txt", data)
    with folder:
        ids = read_or_refused(lambda: read_opt_outs(path))
    assert all(patient_id == patient_id.strip() and patient_id for patient_id in ids or ())
