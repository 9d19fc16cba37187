"""Targets: files of records, their dictionary, and the list of opt-outs."""

import csv
import io
import math
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path

import numpy as np

from client.errors import RecordFault
from client.records.csv_source import CsvSource
from client.records.dictionary import DataDictionary, read_dictionary
from client.records.opt_outs import INVISIBLE, LONGEST_ID, read_opt_outs
from client.records.value_formats import DateFormat, NumberFormat
from tests.fuzz.target import (
    Target,
    file,
    joined,
    parts,
    require_seen,
    scratch,
)

SOURCE, CSV_TEXT = "client/records/csv_source.py", "client/records/csv_text.py"
BEGINNING, DICTIONARIES = "client/records/csv_beginning.py", "client/records/dictionary.py"
FORMATS, READING = "client/records/value_formats.py", "governance/documents/reading.py"
BEGINNING_OF = b"dictionary: 1\ntitle: Patients\npatient: id\n"
SIMPLE = BEGINNING_OF + (
    b"features:\n"
    b"  - {name: age, type: numeric, bounds: [0, 120]}\n"
    b"  - {name: sex, type: categorical, codes: {F: female, M: male}}\n"
)
EUROPEAN = (
    b'dictionary: 1\ntitle: Patienten\npatient: Nummer\ndelimiter: ";"\ndecimal: ","\n'
    b'thousands: "."\nencoding: windows-1252\nskip: 1\nid_case: ignore\nmissing: ["", "-9"]\n'
    b"features:\n"
    b"  - {name: sugar, column: Zucker, type: numeric, bounds: [0, 10000]}\n"
    b"  - {name: born, column: Geburtstag, type: numeric, bounds: [1900, 2030], "
    b"date_format: DD.MM.YYYY}\n"
    b"  - {name: ill, column: krank, type: boolean, true_above: 0}\n"
)
WITHOUT_HEADER = (
    b'dictionary: 1\ntitle: Rows\npatient: row number\nheader: false\ndelimiter: "\\t"\n'
    b"encoding: utf-16\ncolumns: [a, b]\nfeatures:\n"
    b"  - {name: a, type: numeric, bounds: [0, 9]}\n"
    b"  - {name: b, type: boolean, codes: {Y: true, N: false}, missing: ['?']}\n"
)
RECORDS: Mapping[str, tuple[bytes, tuple[bytes, ...]]] = {
    "records": (
        SIMPLE,
        (
            b"id,age,sex\np1,40,F\np2,,M\n",
            b'\xef\xbb\xbfid,note,age,sex\r\n"p,1","a ""b""\nc",40.5,F\r\np2,,1e1,M\r\n,,,\r\n',
            b"sep=,\nage,sex,id\n1,F,007\n2,M,7\n",
        ),
    ),
    "records with a decimal comma": (
        EUROPEAN,
        (
            (
                b"Bericht\nNummer;Zucker;Geburtstag;krank;x\nA1;1.234,5;01.02.1990;0;\xe4\n"
                b"B2;-9;29.02.2000;1,5;\n"
            ),
        ),
    ),
    "records without a header": (
        WITHOUT_HEADER,
        ("\ufeff1\tyes\n2.5\t?\n".encode("utf-16-le"), "1\tyes\r\n".encode("utf-16")),
    ),
}


def _dictionary(data: bytes) -> None:
    """Read a dictionary: it means the same when it is written again, and can be used."""
    read_bytes = file(read_dictionary, "dictionary.yaml")
    dictionary: DataDictionary = read_bytes(data)  # type: ignore[assignment]
    again = dictionary.model_dump(mode="json", exclude_none=True)
    assert DataDictionary.model_validate(again).digest() == dictionary.digest()
    dictionary.recorded()
    for entry in dictionary.features:
        for typed in ("", "1", "1,5", *entry.codes):
            try:
                assert not math.isinf(dictionary.value(entry, typed))
            except ValueError:
                continue


@cache
def _known(dictionary: bytes) -> DataDictionary:
    path = scratch() / "dictionary.yaml"
    path.write_bytes(dictionary)
    return read_dictionary(path)


def _records(dictionary: bytes, data: bytes) -> None:
    """Read records: every row is a patient who is on the row's line, and every value is finite."""
    known, path = _known(dictionary), scratch() / "records.csv"
    path.write_bytes(data)
    records = CsvSource(path, known).read(frozenset({"p2"}))
    for column in records.columns.values():
        assert len(column) == len(records.ids)
        assert not np.isinf(column).any()
    assert len(set(known.id_keys(records.ids))) == len(records.ids)
    require_seen(*records.ids)
    if dictionary is SIMPLE:
        _require_same_patients(data, records.ids)


def _require_same_patients(data: bytes, ids: tuple[str, ...]) -> None:
    """Compare with what Python's own reader finds in a plain file."""
    if data.startswith(b"sep="):
        return
    plain = data.decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
    plain = plain if "\n" in plain else plain.replace("\r", "\n")
    header, *rows = csv.reader(io.StringIO(plain, newline="\n"), strict=True)
    place = [unicodedata.normalize("NFC", name) for name in header].index("id")
    expected = [row[place].strip() for row in rows if any(field.strip() for field in row)]
    assert list(ids) == [patient for patient in expected if patient != "p2"]


def _dictionary_and_records(dictionary: bytes, data: bytes) -> None:
    """Read records with a dictionary of the operator: both may be wrong."""
    known = file(read_dictionary, "other.yaml")(dictionary)
    path = scratch() / "records.csv"
    path.write_bytes(data)
    assert isinstance(known, DataDictionary)
    records = CsvSource(path, known).read()
    assert all(len(column) == len(records.ids) for column in records.columns.values())


def _opt_outs(path: Path) -> None:
    """Read opt-outs: each id is one that somebody sees, without blanks around it."""
    for patient, line in read_opt_outs(path).items():
        assert 0 < len(patient) <= LONGEST_ID
        assert patient == patient.strip()
        assert not any(unicodedata.category(sign) in INVISIBLE for sign in patient)
        assert line >= 1


def _number(typed: bytes, decimal: bytes, thousands: bytes) -> None:
    """Read a number: whatever is declared, it is a finite one."""
    signs = [each.decode(errors="ignore") for each in (decimal, thousands)]
    written = NumberFormat(
        "," if signs[0] == "," else ".", signs[1] if signs[1] in (".", ",", " ", "'") else None
    )
    try:
        value = written.parse(typed.decode(errors="replace"))
    except ValueError as error:
        raise RecordFault("It is no number", why=str(error)) from None
    assert math.isfinite(value)


def _date(form: bytes, typed: bytes) -> None:
    try:
        year = DateFormat(form.decode(errors="replace")).parse(typed.decode(errors="replace"))
    except ValueError as error:
        raise RecordFault("It is no date", why=str(error)) from None
    assert 0 < year < 10_000


def _record_targets() -> Iterator[tuple[str, Target]]:
    for name, (dictionary, files) in RECORDS.items():
        modules = (SOURCE, CSV_TEXT, BEGINNING, FORMATS)
        yield name, Target(partial(_records, dictionary), files, modules)


RECORD_TARGETS: dict[str, Target] = {
    "data dictionary": Target(
        _dictionary, (SIMPLE, EUROPEAN, WITHOUT_HEADER), (DICTIONARIES, READING)
    ),
    **dict(_record_targets()),
    "dictionary and records": Target(
        parts(_dictionary_and_records, 2),
        tuple(joined(dictionary, files[0]) for dictionary, files in RECORDS.values()),
        (DICTIONARIES, SOURCE),
    ),
    "opt-out list": Target(
        file(_opt_outs),
        (b"p1\np2 # by letter\n", b'# list\r\n"a#1"\r\n"say ""no"""\r\n\r\n007\r\n'),
        ("client/records/opt_outs.py", "governance/runtime/text_files.py"),
    ),
    "number in a file": Target(
        parts(_number, 3), (joined(b"1.234,5", b",", b"."), joined(b"-1e3", b".")), (FORMATS,)
    ),
    "date in a file": Target(parts(_date, 2), (joined(b"DD.MM.YYYY", b"29.02.2000"),), (FORMATS,)),
}
