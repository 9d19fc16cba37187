"""Variants of the files that people give: read exactly as declared, or refused; never otherwise."""

import csv
import io
import math
import string
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from client.errors import RecordFault
from client.records.csv_source import CsvSource
from client.records.dictionary import DataDictionary
from client.records.opt_outs import read_opt_outs
from governance.documents.yaml_text import parse_yaml
from tests.support.examples import examples

ENCODINGS = ("utf-8", "utf-16", "utf-16-le", "windows-1252", "iso-8859-15")
IDS = st.text("abcXYZ0189äß-", min_size=1, max_size=6)
NUMBERS = st.integers(-10_000_000, 10_000_000).map(lambda number: number / 100)
NOTES = st.text(string.ascii_letters + " äß\"';,\n\r", max_size=12)
NAMES = st.lists(st.sampled_from(["", "ID", "Age", "note", "Größe", "a\nb", "x"]), max_size=4)
FILES = st.fixed_dictionaries(
    {
        "rows": st.lists(
            st.tuples(IDS, NUMBERS, NOTES), max_size=6, unique_by=lambda row: row[0].casefold()
        ),
        "encoding": st.sampled_from(ENCODINGS),
        "delimiter": st.sampled_from([",", ";", "\t", "|"]),
        "decimal": st.sampled_from([".", ","]),
        "grouped": st.booleans(),
        "ending": st.sampled_from(["\n", "\r\n"]),
        "before": st.lists(st.text("ab ü;,", max_size=8), max_size=3),
        "others": NAMES,
        "empty_rows": st.integers(0, 2),
    }
)


def written(number: float, decimal: str, *, grouped: bool) -> str:
    text = f"{number:,.2f}" if grouped else f"{number:.2f}"
    other = {".": ",", ",": "."}[decimal]
    return text.replace(",", "\0").replace(".", decimal).replace("\0", other)


def the_file(file: dict[str, Any]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(
        text, delimiter=file["delimiter"], lineterminator=file["ending"], quoting=csv.QUOTE_ALL
    )
    text.writelines(line + file["ending"] for line in file["before"])
    writer.writerow(["id", *file["others"], "age"])
    for patient, age, note in file["rows"]:
        number = written(age, file["decimal"], grouped=file["grouped"])
        writer.writerow([patient, *([note] * len(file["others"])), number])
    for _ in range(file["empty_rows"]):
        text.write(file["delimiter"] * (len(file["others"]) + 1) + file["ending"])
    return text.getvalue().encode(file["encoding"])


def its_dictionary(file: dict[str, Any]) -> DataDictionary:
    return DataDictionary.model_validate(
        {
            "dictionary": 1,
            "title": "t",
            "patient": "id",
            "delimiter": file["delimiter"],
            "decimal": file["decimal"],
            "thousands": {".": ",", ",": "."}[file["decimal"]] if file["grouped"] else None,
            "encoding": file["encoding"],
            "skip": len(file["before"]),
            "features": [{"name": "age", "type": "numeric", "bounds": [0, 120]}],
        }
    )


@settings(max_examples=examples(80), deadline=None)
@given(FILES)
def test_a_declared_file_is_read_back(file: dict[str, Any]) -> None:
    data = the_file(file)
    if file["encoding"].startswith(("windows", "iso")) and _is_utf8_beyond_ascii(data):
        return  # it would be refused: such bytes are hardly ever what was declared
    with TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        path.write_bytes(data)
        records = CsvSource(path, its_dictionary(file)).read()
    assert records.ids == tuple(row[0] for row in file["rows"])
    assert records.columns["age"].tolist() == [row[1] for row in file["rows"]]


@settings(max_examples=examples(80), deadline=None)
@given(FILES, st.data())
def test_a_file_read_by_another_dictionary_is_the_same_or_refused(
    file: dict[str, Any], data: st.DataObject
) -> None:
    setting = data.draw(st.sampled_from(["encoding", "delimiter", "decimal", "before"]))
    other = {**file, setting: data.draw(FILES)[setting]}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        path.write_bytes(the_file(file))
        try:
            records = CsvSource(path, its_dictionary(other)).read()
        except RecordFault as fault:
            if not (fault.what and fault.why and fault.fix):
                raise AssertionError(f"a refusal without words: {fault!r}") from fault
            return
    assert len(records.ids) == len(file["rows"])
    if (
        setting == "decimal"
    ):  # `1.234` and `1,234` may be read in either way, if groups are declared
        return
    assert records.columns["age"].tolist() == [row[1] for row in file["rows"]]


def _is_utf8_beyond_ascii(data: bytes) -> bool:
    try:
        return not data.decode("utf-8").isascii()
    except UnicodeDecodeError:
        return False


SCALARS = st.one_of(
    st.booleans(),
    st.none(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.sampled_from(["NO", "yes", "010", "12:30", "1_000", "1e5", "0x1F", "2026-01-31", "~", "<<"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=examples(150), deadline=None)
@given(st.dictionaries(st.text(max_size=6), VALUES, max_size=4))
def test_quoted_yaml_is_read_back_exactly(values: dict[str, Any]) -> None:
    text = yaml.dump(values, Dumper=_Quoting, width=10**6)
    try:
        assert parse_yaml(text.encode()).values == values
    except ValueError as error:
        assert "not allowed" in str(error)  # noqa: PT017 (a character that YAML 1.2 forbids)


class _Quoting(yaml.SafeDumper):
    """Quotes every text and refers to nothing twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')


_Quoting.add_representer(str, _quoted)


@settings(max_examples=examples(150), deadline=None)
@given(st.text("0123456789abefonxyNY.:_+-~", min_size=1, max_size=8))
def test_a_plain_scalar_is_what_it_shows(text: str) -> None:
    """It is the text itself, or a number, truth or null that prints as it was written."""
    try:
        value = parse_yaml(f"a: {text}\n".encode()).values["a"]
    except (ValueError, KeyError, TypeError):
        return
    if isinstance(value, str):
        assert value == text
    elif isinstance(value, bool) or value is None:
        assert text.lower() in {"true", "false", "null", "~"}
    else:
        assert value.written == text
        assert math.isclose(float(text), value)
        assert text.lstrip("+-") in {"0"} or not text.lstrip("+-").startswith(("00", "01", "07"))


ENTRIES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=8)


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(ENTRIES, max_size=5))
def test_a_listed_id_is_never_read_as_another(entries: list[str]) -> None:
    """Each line is the id that it shows, or a comment, or the whole list is refused."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "list"
        path.write_text("\n".join(entries) + "\n", encoding="utf-8", newline="")
        try:
            ids = read_opt_outs(path)
        except RecordFault:
            return
    lines = [entry.strip() for entry in entries]
    lines[:1] = [line.removeprefix("\ufeff").strip() for line in lines[:1]]
    ids_shown = [line for line in lines if line and line[0] not in '#"']
    for patient, line in zip(dict.fromkeys(map(_before_comment, ids_shown)), ids, strict=False):
        assert patient == line or '"' in "".join(lines)


def _before_comment(line: str) -> str:
    return next((line[:n].strip() for n in range(1, len(line)) if line[n] == "#"), line)


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(ENTRIES.map(str.strip).filter(bool), max_size=5, unique=True))
def test_a_quoted_id_may_have_any_visible_sign(entries: list[str]) -> None:
    if any(not entry.isprintable() for entry in entries):
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "list"
        lines = ('"' + entry.replace('"', '""') + '" # why\n' for entry in entries)
        path.write_text("".join(lines), encoding="utf-8")
        assert list(read_opt_outs(path)) == entries
