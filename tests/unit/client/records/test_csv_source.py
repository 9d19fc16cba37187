import math
import os
from pathlib import Path
from typing import Any

import pytest

from client.errors import RecordFault
from client.records import csv_text
from client.records.csv_source import CsvSource
from client.records.csv_text import LONGEST_LINE
from client.records.dictionary import DataDictionary
from client.records.source import DataSource, Records

HEADER = "id,age,sex,grade,note"
ROWS = ("a1,63,1,0,", "a2,?,2,3,fine", "a3,140,1,1,")


def dictionary(**changes: Any) -> DataDictionary:
    fields: dict[str, Any] = {
        "dictionary": 1,
        "title": "A clinic",
        "missing": ["", "?"],
        "patient": "id",
        "features": [
            {"name": "age", "type": "numeric", "bounds": [0, 120]},
            {"name": "sex", "type": "categorical", "codes": {"1": "male", "2": "female"}},
            {"name": "ill", "column": "grade", "type": "boolean", "true_above": 0},
        ],
    }
    return DataDictionary.model_validate(fields | changes)


def source(folder: Path, data: str | bytes, **changes: Any) -> CsvSource:
    path = folder / "patients.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return CsvSource(path, dictionary(**changes))


def read(folder: Path, *lines: str, opted_out: frozenset[str] = frozenset()) -> Records:
    return source(folder, "\n".join((HEADER, *lines)) + "\n").read(opted_out)


def fault(origin: CsvSource) -> RecordFault:
    with pytest.raises(RecordFault) as caught:
        origin.read()
    assert caught.value.fix
    return caught.value


def listed(values: Any) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values]


def test_a_file_becomes_columns_of_numbers(tmp_path: Path) -> None:
    records = read(tmp_path, *ROWS)
    assert records.ids == ("a1", "a2", "a3")
    assert records.patients == 3
    assert listed(records.columns["age"]) == [63.0, None, 140.0]
    assert listed(records.columns["sex"]) == [0.0, 1.0, 0.0]
    assert listed(records.columns["ill"]) == [0.0, 1.0, 1.0]


def test_the_source_offers_its_dictionary_without_reading(tmp_path: Path) -> None:
    origin: DataSource = CsvSource(tmp_path / "absent.csv", dictionary())
    assert list(origin.features()) == ["age", "sex", "ill"]


def test_values_outside_the_bounds_are_kept_and_reported(tmp_path: Path) -> None:
    report = read(tmp_path, *ROWS, "a4,-5,1,0,").report
    age = report.columns[0]
    assert (age.feature, age.missing, age.below, age.above) == ("age", 1, 1, 1)
    assert report.rows == 4


def test_opted_out_patients_are_left_out_and_unknown_ids_reported(tmp_path: Path) -> None:
    records = read(tmp_path, *ROWS, opted_out=frozenset({"a2", "zz", "yy"}))
    assert records.ids == ("a1", "a3")
    assert all(len(column) == 2 for column in records.columns.values())
    assert records.report.opted_out == 1
    assert records.report.unknown_opt_outs == ("yy", "zz")
    assert records.report.columns[0].missing == 0


def test_everybody_may_opt_out(tmp_path: Path) -> None:
    records = read(tmp_path, *ROWS, opted_out=frozenset({"a1", "a2", "a3"}))
    assert records.patients == 0
    assert records.columns["age"].shape == (0,)


def test_an_empty_file_is_a_country_without_patients(tmp_path: Path) -> None:
    assert read(tmp_path).patients == 0


def test_without_a_header_the_dictionary_names_columns_and_rows(tmp_path: Path) -> None:
    origin = source(
        tmp_path,
        "63.0,1.0,0\n?,2.0,3\n",
        header=False,
        columns=["age", "sex", "grade"],
        patient="row number",
    )
    records = origin.read()
    assert records.ids == ("1", "2")
    assert listed(records.columns["sex"]) == [0.0, 1.0]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters_are_read(tmp_path: Path, delimiter: str) -> None:
    text = "\n".join((HEADER, *ROWS)).replace(",", delimiter)
    assert source(tmp_path, text, delimiter=delimiter).read().patients == 3


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_endings_and_a_byte_order_mark_are_accepted(tmp_path: Path, ending: str) -> None:
    text = "\ufeff" + ending.join((HEADER, *ROWS)) + ending
    assert source(tmp_path, text).read().ids == ("a1", "a2", "a3")


def test_a_column_the_file_lacks_is_named(tmp_path: Path) -> None:
    problem = fault(source(tmp_path, "id,age,sex\na1,63,1\n"))
    assert "the file has no column `grade`; it has `id`, `age`, `sex`" in problem.why
    assert "`column`" in problem.fix


def test_a_header_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    assert (
        "has the column `age` more than once: columns 2, 5"
        in fault(source(tmp_path, "id,age,sex,grade,age\n")).why
    )


def test_a_value_that_cannot_be_read_names_line_column_and_expectation(tmp_path: Path) -> None:
    problem = fault(source(tmp_path, f"{HEADER}\n{ROWS[0]}\na9,sixty,1,0,\n"))
    assert "line 3, column `age`: 'sixty' cannot be read as `age`" in problem.what
    assert problem.why == "expected a number"


def test_a_wrong_code_names_the_codes(tmp_path: Path) -> None:
    problem = fault(source(tmp_path, f"{HEADER}\na9,60,9,0,\n"))
    assert "line 2, column `sex`: '9'" in problem.what
    assert problem.why == "expected one of the codes 1, 2"
    assert "dictionary" in problem.fix


def test_the_line_number_is_right_after_empty_lines_and_quoted_line_breaks(tmp_path: Path) -> None:
    text = f'{HEADER}\n\na1,63,1,0,"two\nlines"\na2,sixty,1,0,\n'
    assert "line 5, column `age`" in fault(source(tmp_path, text)).what


def test_the_line_number_is_right_without_a_header(tmp_path: Path) -> None:
    origin = source(
        tmp_path,
        "63,1,0\nx,1,0\n",
        header=False,
        columns=["age", "sex", "grade"],
        patient="row number",
    )
    assert "line 2, column `age`" in fault(origin).what


def test_a_patient_on_two_lines_is_an_error_that_names_them_and_the_fix(tmp_path: Path) -> None:
    problem = fault(source(tmp_path, "\n".join((HEADER, *ROWS, "a2,50,1,0,", "a1,50,1,0,"))))
    assert "lines 2 and 6 are of the same patient (2 patients are on more" in problem.why
    assert problem.fix.startswith("provide one row per patient")


@pytest.mark.parametrize("one", ["", "  ", "a" * 257, "a\x07"])
def test_a_patient_needs_a_usable_id(tmp_path: Path, one: str) -> None:
    problem = fault(source(tmp_path, f"{HEADER}\n{ROWS[0]}\n{one},60,1,0,\n"))
    assert "line 3 has no usable patient id" in problem.why


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("a9,60,1", "line 3: 5 columns are expected, and the line has 3"),
        ("a9,60,1,0,x,y", "line 3: 5 columns are expected, and the line has 6"),
        ('a9,60,1,0,"open', "line 3: a quoted value has no closing quote"),
        ('a9,60,1,0,"x"y', "line 3: a quoted value has no closing quote"),
        ("a9,60,1,0," + "x" * (LONGEST_LINE + 1), "the line is longer than"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, why: str) -> None:
    problem = fault(source(tmp_path, f"{HEADER}\n{ROWS[0]}\n{line}\n{ROWS[1]}\n"))
    assert why in problem.why
    assert "strict_mode" not in str(problem)  # the library's advice would be wrong here


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    problem = fault(source(tmp_path, f"{HEADER}\na1,63,".encode() + b"\xfc,0,\n"))
    assert "line 2: the byte 0xFC is not UTF-8 text; it looks like Windows-1252" in problem.why
    assert "`encoding: windows-1252`" in problem.fix
    problem = fault(source(tmp_path, b"\xff\xfei\x00d\x00\n\x00"))
    assert problem.why == "it is UTF-16 text, and not UTF-8 text"
    assert "`encoding: utf-16`" in problem.fix


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    problem = fault(source(tmp_path, ""))
    assert str(problem).endswith("The file is empty. To do: export the records again.")
    assert "its first line is empty" in fault(source(tmp_path, "\na1,63,1,0,\n")).why


def test_a_decimal_comma_is_not_taken_for_a_code(tmp_path: Path) -> None:
    data = f'{HEADER}\na1,"36,6",1,0,\n'
    fix = fault(source(tmp_path, data)).fix
    assert "decimal point" in fix
    assert "code" not in fix
    assert "`missing`" in fault(source(tmp_path, f"{HEADER}\na1,old,1,0,\n")).fix
    assert "add the code" in fault(source(tmp_path, f"{HEADER}\na1,63,9,0,\n")).fix


def test_a_column_that_is_not_read_may_contain_anything(tmp_path: Path) -> None:
    data = f"{HEADER}\na1,63,1,0,".encode() + b"\xff\n"
    assert source(tmp_path, data).read().ids == ("a1",)
    wrong = f"{HEADER}\na1,63,1,0,".encode() + b"\xff\na2,x,1,0,\n"
    assert "line 3, column `age`" in fault(source(tmp_path, wrong)).what


@pytest.mark.parametrize(
    "text", ["=cmd|' /C calc'!A0", "@SUM(1)", "'; DROP TABLE patients; --", '"a ""quoted"" b"']
)
def test_hostile_text_in_a_column_that_is_not_read_stays_text(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, f"a1,63,1,0,{text}").ids == ("a1",)


@pytest.mark.parametrize("text", ["=1+1", "1\x00", "\x00", "1e999", "0x3F", "9" * 5000])
def test_hostile_text_in_a_number_is_an_error_and_shown_shortened(
    tmp_path: Path, text: str
) -> None:
    problem = fault(source(tmp_path, f"{HEADER}\na1,{text},1,0,\n"))
    assert "line 2, column `age`" in problem.what
    assert len(problem.what) < 300
    assert "\x00" not in problem.what


@pytest.mark.parametrize("column", ["a'b", 'a"b', "a;--", "Größe", "SELECT", "a b"])
def test_hostile_column_names_stay_names(tmp_path: Path, column: str) -> None:
    quoted = '"' + column.replace('"', '""') + '"'
    feature = {"name": "age", "column": column, "type": "numeric", "bounds": [0, 120]}
    origin = source(tmp_path, f"id,{quoted}\na1,63\n", features=[feature])
    assert listed(origin.read().columns["age"]) == [63.0]


def test_a_name_with_signs_that_the_parser_interprets_is_only_a_name(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text(f"{HEADER}\n")
    assert "No such file" in fault(CsvSource(tmp_path / "*.csv", dictionary())).why
    (tmp_path / "*[a]?{b}'.csv").write_text(f"{HEADER}\n{ROWS[0]}\n")
    assert CsvSource(tmp_path / "*[a]?{b}'.csv", dictionary()).read().patients == 1


def test_a_folder_whose_name_is_not_utf8_is_read(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/B\xfcro"))
    folder.mkdir()
    assert source(folder, f"{HEADER}\n{ROWS[0]}\n").read().patients == 1


def test_a_file_that_is_absent_or_a_folder_is_named(tmp_path: Path) -> None:
    assert "No such file" in fault(CsvSource(tmp_path / "absent.csv", dictionary())).why
    assert "Is a directory" in fault(CsvSource(tmp_path, dictionary())).why


def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = source(tmp_path, "\n".join((HEADER, *ROWS)))
    write = csv_text._write

    def changed_meanwhile(memory: int, data: bytes) -> None:
        write(memory, data)
        origin.path.write_text(f"{HEADER}\n{ROWS[0]}\n")

    monkeypatch.setattr(csv_text, "_write", changed_meanwhile)
    assert "changed while it was being read" in fault(origin).why


def test_the_version_changes_with_data_and_dictionary(tmp_path: Path) -> None:
    first = read(tmp_path, *ROWS).version
    assert first.startswith("sha256:")
    assert read(tmp_path, *ROWS).version == first
    assert read(tmp_path, *ROWS, opted_out=frozenset({"a1"})).version == first
    assert read(tmp_path, *ROWS[:2]).version != first
    changed = source(tmp_path, "\n".join((HEADER, *ROWS)) + "\n", title="Another clinic")
    assert changed.read().version != first
