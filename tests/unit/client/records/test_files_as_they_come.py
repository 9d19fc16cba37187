"""Files as hospitals have them: each is read as its dictionary says, or refused in plain words.

A case names its file, its dictionary, and the expected values or words of the refusal.
"""

import gzip
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from client.commands.records import read_records
from client.errors import RecordFault
from client.records.csv_source import CsvSource
from client.records.dictionary import read_dictionary
from client.records.source import Records
from client.settings import NodeSettings
from tests.support.documents import raw_key

DICTIONARY = """\
dictionary: 1
title: Ward register
patient: id
features:
  - {name: age, type: numeric, unit: years, bounds: [0, 120]}
  - {name: sex, type: categorical, codes: {1: male, 2: female}}
  - {name: crp, type: numeric, unit: mg/L, bounds: [0, 500]}
"""
SEMICOLON = DICTIONARY.replace("patient: id", 'delimiter: ";"\npatient: id')
ROWS = DICTIONARY.replace("patient: id", "patient: row number")
THREE = b"id,age,sex,crp\na,34,1,2.5\nb,71,2,110\nc,5,2,0\n"
NAN = math.nan

READ: dict[str, tuple[bytes, str, Mapping[str, list[Any]]]] = {
    "byte order mark, CR LF": (
        b"\xef\xbb\xbfid;age;sex;crp\r\na;34;1;2.5\r\nb;71;2;110\r\nc;5;2;0\r\n",
        SEMICOLON,
        {"ids": ["a", "b", "c"], "crp": [2.5, 110, 0]},
    ),
    "Windows-1252 in a name that is not read": (
        b"id,age,sex,crp,Gr\xf6\xdfe\na,34,1,2,180\n", DICTIONARY, {"crp": [2]},
    ),
    "Windows-1252 in a column that is not read": (
        b"id,age,sex,crp,ward\na,34,1,2,S\xfcd\nb,71,2,3,N\n", DICTIONARY, {"crp": [2, 3]},
    ),
    "CR alone": (THREE.replace(b"\n", b"\r"), DICTIONARY, {"crp": [2.5, 110, 0]}),
    "mixed line ends": (
        b"id,age,sex,crp\na,34,1,2\r\nb,71,2,3\nc,5,2,1\r\n", DICTIONARY, {"crp": [2, 3, 1]},
    ),
    "empty rows at the end": (THREE + b",,,\n , ,,\n", DICTIONARY, {"ids": ["a", "b", "c"]}),
    "empty rows at the end, no ids": (
        b"age,sex,crp\n34,1,2\n71,2,3\n,,\n,,\n", ROWS, {"ids": ["1", "2"]},
    ),
    "a row whose values are missing is a patient": (
        b"age,sex,crp,note\n34,1,2,\n,,,moved\n", ROWS, {"ids": ["1", "2"], "age": [34, NAN]},
    ),
    "a name twice that is not read": (
        b"id,age,sex,crp,Datum,Datum\na,34,1,2.5,1,2\n", DICTIONARY, {"crp": [2.5]},
    ),
    "ID beside id": (
        b"ID,id,age,sex,crp\nx,a,34,1,2.5\ny,b,71,2,110\n", DICTIONARY, {"ids": ["a", "b"]},
    ),
    "ID after id": (
        b"id,age,sex,crp,ID\na,34,1,2.5,x\nb,71,2,110,y\n", DICTIONARY, {"ids": ["a", "b"]},
    ),
    "a line break in a name": (
        b'id,age,sex,"crp\r\n(mg/L)",x\r\na,34,1,2.5,1\r\n',
        DICTIONARY.replace("name: crp,", 'name: crp, column: "crp\\n(mg/L)",'),
        {"crp": [2.5]},
    ),
    "a line break in a name that is not read": (
        b'id,age,sex,crp,"remarks\n(free text)"\na,34,1,2.5,none\n', DICTIONARY, {"crp": [2.5]},
    ),
    "Excel's sep=": (b"sep=;\nid;age;sex;crp\na;34;1;2\n", SEMICOLON, {"crp": [2]}),
    "a point is a point": (
        b"id;age;sex;crp\na;34;1;1.234\nb;71;2;12\n", SEMICOLON, {"crp": [1.234, 12]},
    ),
    "trailing delimiters": (
        b"id,age,sex,crp,\na,34,1,2.5,\nb,71,2,110,\n", DICTIONARY, {"crp": [2.5, 110]},
    ),
    "two columns without names": (
        b"id,age,sex,crp,,\na,34,1,2.5,,\nb,71,2,110,,\n", DICTIONARY, {"crp": [2.5, 110]},
    ),
    "a dictionary with a byte order mark": (THREE, "\ufeff" + DICTIONARY, {"crp": [2.5, 110, 0]}),
    "codes with zeros": (
        b"id,age,sex,crp\na,34,010,1\nb,71,008,2\n",
        DICTIONARY.replace("{1: male, 2: female}", "{008: male, 010: female}"),
        {"sex": [1, 0]},
    ),
    "a code with a colon": (
        b"id,age,sex,crp\na,34,12:30,1\nb,71,9,2\n",
        DICTIONARY.replace("{1: male, 2: female}", "{12:30: noon, 9: morning}"),
        {"sex": [0, 1]},
    ),
    "a column that two features read": (
        THREE, DICTIONARY + "  - {name: old, column: age, type: boolean, true_above: 65}\n",
        {"old": [0, 1, 0]},
    ),
    "sentinels however they are written": (
        b"id,age,sex,crp\na,0999,1,-99.90\nb,71,2,3.1\nc,71,2,-99.9\n",
        DICTIONARY.replace("120]", "120], missing: [999]").replace(
            "500]", "500], missing: [-99.9]"
        ),
        {"age": [NAN, 71, 71], "crp": [NAN, 3.1, NAN]},
    ),
    "a sentinel with an exponent": (
        b"id,age,sex,crp\na,34,1,10000\nb,71,2,3.1\n",
        DICTIONARY.replace("500]", "500], missing: [1e4]"),
        {"crp": [NAN, 3.1]},
    ),
    "yes and no in quotes": (
        b"id,age,sex,crp\na,34,J,1\nb,3,N,1\n",
        DICTIONARY.replace("{1: male, 2: female}", '{J: "yes", N: "no"}'),
        {"sex": [0, 1]},
    ),
    "ids of thirty digits": (
        b"id,age,sex,crp\n" + b"9" * 29 + b"0,34,1,2\n" + b"9" * 29 + b"1,71,2,3\n", DICTIONARY,
        {"ids": ["9" * 29 + "0", "9" * 29 + "1"]},
    ),
    "ids with zeros": (
        b"id,age,sex,crp\n007,34,1,2\n7,71,2,3\n", DICTIONARY, {"ids": ["007", "7"]},
    ),
    "a column that is missing": (
        b"id,age,sex,crp\na,34,1,\nb,71,2,\n", DICTIONARY, {"crp": [NAN, NAN]},
    ),
    "no patient": (b"id,age,sex,crp\n", DICTIONARY, {"ids": []}),
    "no patient and no line end": (b"id,age,sex,crp", DICTIONARY, {"ids": []}),
    "one patient and no line end": (b"id,age,sex,crp\na,34,1,2", DICTIONARY, {"ids": ["a"]}),
    "an exponent": (b"id,age,sex,crp\na,34,1,2.5e2\n", DICTIONARY, {"crp": [250]}),
    "NUL in a column that is not read": (
        b"id,age,sex,crp,note\na,34,1,2,x\x00y\nb,71,2,3,\n", DICTIONARY, {"crp": [2, 3]},
    ),
    "a quotation mark in a text": (
        b'id,age,sex,crp,note\na,34,1,2,6" tube\nb,71,2,3,ok\n', DICTIONARY, {"crp": [2, 3]},
    ),
    "one column": (
        b"age\n34\n\n71\n", ROWS[: ROWS.index("  - {name: sex")], {"ids": ["1", "2"]},
    ),
    "lines before the header": (
        b"Export of 2026\n\n\xfc\nid,age,sex,crp\na,34,1,2\n",
        DICTIONARY.replace("patient:", "skip: 3\npatient:"), {"crp": [2]},
    ),
    "decimal comma": (
        b"id;age;sex;crp\na;34;1;2,5\nb;71;2;110,0\n",
        SEMICOLON.replace("patient:", "decimal: ','\npatient:"), {"crp": [2.5, 110]},
    ),
    "thousands": (
        b'id,age,sex,crp\na,34,1,"1,234.5"\nb,71,2,12\n',
        DICTIONARY.replace("patient:", "thousands: ','\npatient:"), {"crp": [1234.5, 12]},
    ),
    "thousands of two kinds of blank": (
        "id;age;sex;crp\na;34;1;1\u202f234,5\nb;71;2;1 234\n".encode(),
        SEMICOLON.replace("patient:", "decimal: ','\nthousands: ' '\npatient:"),
        {"crp": [1234.5, 1234]},
    ),
    "declared Windows-1252": (
        "id,age,sex,crp\nÄ1,34,1,2\n".encode("windows-1252"),
        DICTIONARY.replace("patient:", "encoding: windows-1252\npatient:"), {"ids": ["Ä1"]},
    ),
    "declared UTF-16": (
        "id,age,sex,crp\r\nÄ1,34,1,2\r\n".encode("utf-16"),
        DICTIONARY.replace("patient:", "encoding: utf-16\npatient:"), {"ids": ["Ä1"]},
    ),
    "dates with a form": (
        b"id,age,sex,crp,born\na,34,1,2,01.01.1990\nb,71,2,3,02.07.1955\n",
        DICTIONARY
        + "  - {name: born, type: numeric, bounds: [1900, 2030], date_format: DD.MM.YYYY}\n",
        {"born": [1990, 1955 + 182 / 365]},
    ),
}  # fmt: skip

REFUSED: dict[str, tuple[bytes, str, str]] = {
    "Windows-1252 in an id": (
        b"id,age,sex,crp\n\xc41,34,1,2\nb,71,2,3\n", DICTIONARY,
        "Line 2: the byte 0xC4 is not UTF-8 text; it looks like Windows-1252, where it is `Ä`",
    ),
    "decimal comma": (b"id;age;sex;crp\na;34;1;2,5\n", SEMICOLON, "set `decimal: ','`"),
    "an empty row between": (
        b"age,sex,crp\n34,1,2\n,,\n71,2,3\n", ROWS, "Line 3 is empty in every column",
    ),
    "a line without id": (THREE + b",1,1,1\n", DICTIONARY, "Line 5 has no usable patient id"),
    "a footer": (
        b"id;age;sex;crp\na;34;1;2\n\nSource: statistics;as of 2026;;\n", SEMICOLON,
        "line 4, column `age`: 'as of 2026'",
    ),
    "names with blanks": (
        b"id, age, sex, crp\na, 34, 1, 2.5\n", DICTIONARY, "it has `id`, ` age`, ` sex`, ` crp`",
    ),
    "line numbers after quoted line breaks": (
        b'id,age,sex,crp,note\na,34,1,2,"one\ntwo\r\nthree"\n\nb,xx,2,3,\n', DICTIONARY,
        "line 6, column `age`: 'xx'",
    ),
    "the other delimiter in sep=": (
        b"sep=,\nid;age;sex;crp\n", SEMICOLON, 'set `delimiter: ","` in the dictionary',
    ),
    "thousands and decimal comma": (
        b'id;age;sex;crp\na;34;1;"1.234,5"\n', SEMICOLON, "`decimal: ','` and `thousands: '.'`",
    ),
    "thousands": (
        b'id,age,sex,crp\na,34,1,"1,234.5"\n', DICTIONARY, "set `thousands: ','`",
    ),
    "thousands in groups of two": (
        b"id;age;sex;crp\na;34;1;1.23,4\n",
        SEMICOLON.replace("patient:", "decimal: ','\nthousands: '.'\npatient:"),
        "Expected groups of three digits, separated by `.`",
    ),
    "a point with a decimal comma": (
        b"id;age;sex;crp\na;34;1;2.5\n", SEMICOLON.replace("patient:", "decimal: ','\npatient:"),
        "Expected a number with the decimal sign `,`",
    ),
    "a trailing delimiter in the header only": (
        b"id,age,sex,crp,\na,34,1,2.5\n", DICTIONARY,
        "Line 2: 5 columns are expected, and the line has 4",
    ),
    "a trailing delimiter in the rows only": (
        b"id,age,sex,crp\na,34,1,2.5\nb,71,2,110,\n", DICTIONARY,
        "Line 3: 4 columns are expected, and the line has 5",
    ),
    "a trailing delimiter in the last row": (
        b'id,age,sex,crp\na,34,1,"2.5"\nb,71,2,"110",', DICTIONARY, "the line has 5",
    ),
    "UTF-16": ("id,age,sex,crp\na,34,1,2\n".encode("utf-16"), DICTIONARY, "It is UTF-16 text"),
    "UTF-16 without a mark": (
        "id,age,sex,crp\na,34,1,2\n".encode("utf-16-le"), DICTIONARY, "It is UTF-16 text",
    ),
    "UTF-16 that has no mark": (
        "id,age,sex,crp\n".encode("utf-16-le"),
        DICTIONARY.replace("patient:", "encoding: utf-16\npatient:"), "no byte order mark",
    ),
    "UTF-8 that was declared as Windows-1252": (
        "id,age,sex,crp\nÄ1,34,1,2\n".encode(),
        DICTIONARY.replace("patient:", "encoding: windows-1252\npatient:"),
        "all of it is UTF-8 text; leave `encoding` out",
    ),
    "another delimiter": (b"id;age;sex;crp\na;34;1;2\n", DICTIONARY, 'set `delimiter: ";"`'),
    "a line before the header": (
        b"Export of 2026\nid,age,sex,crp\n", DICTIONARY, "line 2 has these columns: set `skip: 1`",
    ),
    "a needed name twice": (
        b"id,age,sex,crp,age\n", DICTIONARY, "has the column `age` more than once: columns 2, 5",
    ),
    "a code that is not listed": (
        b"id,age,sex,crp\na,34,8,1\n",
        DICTIONARY.replace("{1: male, 2: female}", "{010: male, 9: female}"),
        "Expected one of the codes 010, 9",
    ),
    "blank where blank is not missing": (
        b"id,age,sex,crp\na,?,1,2\nb,,2,3\n",
        DICTIONARY.replace("patient:", 'missing: ["?"]\npatient:'), 'add "" to `missing`',
    ),
    "ids that a spreadsheet rounded": (
        b"id,age,sex,crp\n4.2E+11,34,1,2\n4.2E+11,71,2,3\n", DICTIONARY,
        "Lines 2 and 3 are of the same patient",
    ),
    "one id in two Unicode forms": (
        "id,age,sex,crp\nM\u00fc,34,1,2\nMu\u0308,71,2,3\n".encode(), DICTIONARY,
        "Lines 2 and 3 are of the same patient",
    ),
    "gzip": (gzip.compress(THREE), DICTIONARY, "It is compressed with gzip"),
    "a workbook": (b"PK\x03\x04" + bytes(40), DICTIONARY, "a ZIP archive or an Excel workbook"),
    "an empty file": (b"", DICTIONARY, "The file is empty"),
    "a byte order mark alone": (b"\xef\xbb\xbf", DICTIONARY, "The file is empty"),
    "a very long field": (
        b"id,age,sex,crp,note\na,34,1,2," + b"x" * 120_000 + b"\n", DICTIONARY, "Line 2: the line",
    ),
    "a backslash before a quotation mark": (
        b'id,age,sex,crp,note\na,34,1,2,"said \\"ok\\" twice"\nb,71,2,3,ok\n', DICTIONARY,
        "Line 2: a quoted value has no closing quote",
    ),
    "a date": (
        b"id,age,sex,crp,born\na,34,1,2,1990-01-31\n",
        DICTIONARY + "  - {name: born, type: numeric, bounds: [1900, 2026]}\n",
        "give the feature `date_format`",
    ),
    "a day that does not exist": (
        b"id,age,sex,crp,born\na,34,1,2,31.02.1990\n",
        DICTIONARY
        + "  - {name: born, type: numeric, bounds: [1900, 2030], date_format: DD.MM.YYYY}\n",
        "there is no such day",
    ),
    "digits of another script": (
        "id,age,sex,crp\na,３４,1,2\n".encode(), DICTIONARY, "line 2, column `age`",
    ),
    "a unit": (b"id,age,sex,crp\na,34,1,2\nb,71 years,2,3\n", DICTIONARY, "line 3, column `age`"),
    "NaN": (b"id,age,sex,crp\na,NaN,1,2\n", DICTIONARY, "add this text to `missing`"),
    "NUL in an id": (b"id,age,sex,crp\na\x00,34,1,2\n", DICTIONARY, "Line 2 has no usable"),
    "a zero-width character in an id": (
        "id,age,sex,crp\n\u200ba,34,1,2\n".encode(), DICTIONARY, "Line 2 has no usable",
    ),
    "a percentage": (b"id,age,sex,crp\na,34,1,45%\n", DICTIONARY, "line 2, column `crp`: '45%'"),
    "a header that was not declared": (
        b"age,sex,crp\n34,1,2\n",
        ROWS.replace("patient:", "header: false\ncolumns: [age, sex, crp]\npatient:"),
        "if this line is a header",
    ),
}  # fmt: skip


def read(folder: Path, data: bytes, dictionary: str) -> Records:
    (folder / "data.csv").write_bytes(data)
    (folder / "dictionary.yaml").write_text(dictionary, encoding="utf-8")
    return CsvSource(folder / "data.csv", read_dictionary(folder / "dictionary.yaml")).read()


@pytest.mark.parametrize("name", READ)
def test_a_file_is_read_as_its_dictionary_says(tmp_path: Path, name: str) -> None:
    data, dictionary, expected = READ[name]
    records = read(tmp_path, data, dictionary)
    for column, values in expected.items():
        found = list(records.ids) if column == "ids" else records.columns[column].tolist()
        assert repr(found) == repr([v if column == "ids" else float(v) for v in values])


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_the_dictionary_does_not_explain_is_refused(tmp_path: Path, name: str) -> None:
    data, dictionary, words = REFUSED[name]
    with pytest.raises(RecordFault) as caught:
        read(tmp_path, data, dictionary)
    assert words in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[0, 120]", "[40, 40]", "the two must differ"),
        ("[0, 120]", "[0, .inf]", "expected a number, found '.inf'"),
        (", bounds: [0, 120]", "", "a numeric feature needs public bounds"),
        ("[0, 120]", '["0", "120"]', "expected a number, found '0'"),
        ("[0, 120]", "[false, true]", "expected a number, found false"),
        ("2: female", "2: female, 2: other", "line 6, column 64: the field 2 is here twice"),
        ("2: female", '2: female, "2": other', "the field 2 is here twice"),
        ("2: female", "2: female, 2.0: other", "`2` and `2.0` are the same code"),
        ("title:", "missing: [999]\nmissing: [NA]\ntitle:", "line 3, column 1: the field missing"),
        ("name: age", "name: Age", "write the name of its column under `column`, found 'Age'"),
        ("1: male", '1: "Carcinoma, NOS"', "letters A to Z, digits, blanks and _ . + / < > -"),
        ("1: male", "1: männlich", "letters A to Z, digits, blanks and _ . + / < > -"),
        ("{1: male, 2: female}", "{J: yes, N: no}", "write `yes` in quotes"),
        (
            "{1: male, 2: female}",
            "{1: 1, 2: 2}",
            'write the name of a level in quotes, such as "1"',
        ),
        ("  - {name: age", "\t- {name: age", "line 5, column 1: a tab is here; write blanks"),
        ("patient:", 'missing: ["1"]\npatient:', "`1` is a code and listed under `missing` too"),
        ("patient:", "decimal: ','\nthousands: ','\npatient:", "must differ"),
        ("patient:", "encoding: latin-1\npatient:", "line 3, column 1, encoding: expected"),
        ("patient:", "skip: -1\npatient:", "a number of at least 0"),
        ("[0, 500]", "[0, 500], date_format: DD.MM.YY", "has YYYY, MM and DD once each"),
        ("Ward", "Ward\u2028", "the character U+2028 is not allowed"),
    ],
)
def test_a_dictionary_that_is_not_clear_is_refused(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    assert old in DICTIONARY
    with pytest.raises(RecordFault) as caught:
        read(tmp_path, THREE, DICTIONARY.replace(old, new, 1))
    assert words in caught.value.why


def test_a_dictionary_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "dictionary.yaml"
    for encoding, words in (
        ("windows-1252", "Line 2, byte 9: the byte 0xFC"),
        ("utf-16", "UTF-16"),
    ):
        path.write_bytes(DICTIONARY.replace("Ward", "Süd").encode(encoding))
        with pytest.raises(RecordFault, match=words):
            read_dictionary(path)


@pytest.mark.parametrize(
    "name", [b"O'Brien's.csv", "Register Süd 2026.csv".encode(), b"register[2026].csv", b"B\xfcro"]
)
def test_a_file_may_have_any_name(tmp_path: Path, name: bytes) -> None:
    read(tmp_path, THREE, DICTIONARY)
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    (tmp_path / "data.csv").rename(path)
    dictionary = read_dictionary(tmp_path / "dictionary.yaml")
    assert CsvSource(path, dictionary).read().patients == 3


OPT_OUTS: dict[str, tuple[list[str], str, list[str] | str]] = {
    "other capitals": (["P1", "P2"], "p1\n", "`p1` (line 1), but the records have `P1`"),
    "a list in one line": (["P1", "P2"], "P1, P2\n", "the line contains `,`"),
    "CSV with a header": (["P1"], "id,reason\nP1,by letter\n", "Line 1: the line contains `,`"),
    "# in an id": (["A#12", "A"], "A#12\n", "Line 1: it is not clear whether `#` belongs"),
    "# in an id, quoted": (["A#12", "A"], '"A#12" # by letter\n', ["A"]),
    "a blank that does not break": (["P1", "P2"], "P1\u00a0\n", ["P2"]),
    "quotes": (["0012", "0013"], '"0012"\n', ["0013"]),
    "an open quote": (["0012"], '"0012\n', "Line 1: one id in double quotes is expected"),
    "a quote inside": (['a"1', "b"], '"a""1"\n', ["b"]),
    "a semicolon after it": (["P1"], "P1;\n", "the line contains `;`"),
    "another Unicode form": (["M\u00fc1", "P2"], "Mu\u03081\n", ["P2"]),
    "a zero-width character": (["P1"], "\u200bP1\n", "invisible character U+200B"),
    "a soft hyphen": (["P1"], "P\u00ad1\n", "invisible character U+00AD"),
    "a byte order mark inside": (["P1"], "P2\n\ufeffP1\n", "Line 2: the id contains"),
    "zeros that a spreadsheet removed": (
        ["0012", "0013"], "12\n13\n",
        "`12` (line 1), but the records have `0012`, `13` (line 2), but the records have `0013`",
    ),
    "old line ends": (["a", "b", "c"], "a\rb\r", ["c"]),
    "a comment": (["a", "b"], "# nobody\na  # by letter\n", ["b"]),
}  # fmt: skip


@pytest.mark.parametrize("name", OPT_OUTS)
def test_who_opted_out_is_left_out_or_the_entry_is_named(tmp_path: Path, name: str) -> None:
    ids, text, expected = OPT_OUTS[name]
    rows = "".join('"' + one.replace('"', '""') + '",34,1,2\n' for one in ids)
    read(tmp_path, f"id,age,sex,crp\n{rows}".encode(), DICTIONARY)
    (tmp_path / "list").write_text(text, encoding="utf-8", newline="")
    if isinstance(expected, list):
        records = read_records(settings(tmp_path))
        assert records.report.rows - records.report.opted_out == len(expected)
        assert records.unmatched == ()
    elif expected.startswith("`"):
        unmatched = read_records(settings(tmp_path)).unmatched
        assert ", ".join(entry.sentence() for entry in unmatched) == expected
    else:
        with pytest.raises(RecordFault) as caught:
            read_records(settings(tmp_path))
        assert expected in str(caught.value)


def test_a_list_in_utf16_is_refused(tmp_path: Path) -> None:
    read(tmp_path, THREE, DICTIONARY)
    (tmp_path / "list").write_bytes("a\n".encode("utf-16"))
    with pytest.raises(RecordFault, match="UTF-16"):
        read_records(settings(tmp_path))


def test_ids_may_be_declared_to_ignore_case(tmp_path: Path) -> None:
    dictionary = DICTIONARY.replace("patient: id", "patient: id\nid_case: ignore")
    read(tmp_path, b"id,age,sex,crp\nP1,34,1,2\nP2,3,1,2\n", dictionary)
    (tmp_path / "list").write_text("p1\n")
    assert read_records(settings(tmp_path)).report.opted_out == 1
    with pytest.raises(RecordFault, match="are of the same patient"):
        read(tmp_path, b"id,age,sex,crp\nP1,34,1,2\np1,3,1,2\n", dictionary)


@pytest.mark.parametrize(
    ("data", "line"),
    [(b"age,sex,crp\n34,1,2\n71,2,3\n", 3), (b"age,sex,crp\n34,1,2\n\n\n71,2,3\n", 5)],
)
def test_a_row_number_is_no_line_and_the_report_says_so(
    tmp_path: Path, data: bytes, line: int
) -> None:
    read(tmp_path, data, ROWS)
    (tmp_path / "list").write_text("2\n")
    report = read_records(settings(tmp_path)).report
    assert report.lines()[1] == f"left out: row 2 (line {line})"
    assert report.columns[0].missing == 0


def settings(folder: Path) -> NodeSettings:
    return NodeSettings(
        country="DE",
        data=folder / "data.csv",
        dictionary=folder / "dictionary.yaml",
        opt_out=folder / "list",
        officer_key=raw_key(5).public.to_text(),
    )
