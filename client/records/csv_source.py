"""Reads records from a CSV file with its data dictionary, through DuckDB.

Reading is strict, and whole or not at all. A line with too few or too many fields, an open quote, a
value that is not UTF-8 or that the dictionary does not explain, a patient on two lines: each is an
error that names its line, and nothing is read. Columns that the dictionary does not name are
ignored, whatever their names are. Messages are for the operator of this node only, and may quote a
value.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from client.errors import ContentFault, RecordFault
from client.records.csv_beginning import ENCODING_FIX, unusable
from client.records.csv_text import LONGEST_LINE, CsvText, csv_text
from client.records.dictionary import ROW_NUMBER, DataDictionary, Entry
from client.records.quality_report import ColumnQuality, QualityReport
from client.records.source import RecordedFeature, Records
from client.records.value_formats import how_to_read
from governance.runtime.text_files import not_utf8
from keys.errors import reason_of
from protocols.tasks.features import FloatArray
from protocols.wire.encoding import canonical_json, digest

LONGEST_ID = 256
SHOWN = 40
SHOWN_ROWS = 10
"""How many rows that opted out are listed with their lines, if rows have no ids."""
DUCKDB = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "threads": "2",
}
READ = (
    "SELECT {names} FROM read_csv(?, auto_detect=false, header=false, delim={delim}, "
    "quote='\"', escape='\"', columns={columns}, strict_mode=true, null_padding={padding}, "
    "parallel={parallel}, nullstr={null}, compression='none', max_line_size={longest})"
)
NO_TEXT = "\x01null\x02"
"""The text that DuckDB reads as NULL. It is in no file, so an empty field is not NULL."""
SURROGATES = re.compile("[\udc80-\udcff]")
Texts = Sequence[str]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class CsvSource:
    """A CSV file with one row per patient, and its data dictionary."""

    path: Path
    dictionary: DataDictionary

    def features(self) -> Mapping[str, RecordedFeature]:
        """Return the features that the dictionary offers, by name."""
        return self.dictionary.recorded()

    def read(self, opted_out: Collection[str] = ()) -> Records:
        """Return all patients except those opted out.

        Raises ContentFault with line and column, or RecordFault if the file cannot be opened.
        """
        try:
            with csv_text(self.path, self.dictionary) as text:
                return _Reading(self, text).records(opted_out)
        except OSError as error:
            raise RecordFault(
                f"The records in {self.path} cannot be used",
                why=reason_of(error),
                fix="check the path and the file's permissions",
            ) from error

    def without(self, records: Records, opted_out: Collection[str]) -> Records:
        """Return records of this source without further patients who opted out."""
        leaving = set(self.dictionary.id_keys(list(opted_out)))
        keys = self.dictionary.id_keys(records.ids)
        kept = np.array([key not in leaving for key in keys], dtype=np.bool_)
        if kept.all():
            return records
        return replace(
            records,
            ids=tuple(compress(records.ids, kept)),
            columns={name: column[kept] for name, column in records.columns.items()},
        )


@dataclass(frozen=True)
class _Reading:
    """One reading of a file."""

    source: CsvSource
    text: CsvText

    @property
    def dictionary(self) -> DataDictionary:
        return self.source.dictionary

    def records(self, opted_out: Collection[str]) -> Records:
        texts, empty_lines = self._without_empty_rows(self._texts())
        ids = self._ids(texts)
        keys = self.dictionary.id_keys(ids)
        self._refuse_duplicates(keys)
        entries = dict(zip(self.dictionary.id_keys(list(opted_out)), opted_out, strict=True))
        kept = np.array([key not in entries for key in keys], dtype=np.bool_)
        columns = {
            entry.name: self._column(entry, texts[entry.source_column])[kept]
            for entry in self.dictionary.features
        }
        known = entries.keys() & set(keys)
        report = QualityReport(
            rows=len(ids),
            opted_out=int((~kept).sum()),
            unknown_opt_outs=tuple(sorted(entries[key] for key in entries.keys() - known)),
            columns=tuple(_quality(e, columns[e.name]) for e in self.dictionary.features),
            header=self.dictionary.header,
            empty_lines=empty_lines,
            left_out_rows=self._lines_of_rows(kept),
        )
        return Records(
            ids=tuple(compress(ids, kept)),
            features=self.source.features(),
            columns=columns,
            version=digest(canonical_json([self.text.digest, self.dictionary.digest()])),
            report=report,
            numbered=self.dictionary.patient == ROW_NUMBER,
            identification=self.dictionary.identification,
        )

    def _column(self, entry: Entry, texts: Texts) -> FloatArray:
        values: dict[str, float] = {}
        for text in dict.fromkeys(texts):
            try:
                values[text] = self.dictionary.value(entry, text)
            except ValueError as error:
                raise self._bad_value(entry, texts.index(text), text, str(error)) from error
        return np.fromiter(map(values.__getitem__, texts), dtype=np.float64, count=len(texts))

    def _bad_value(self, entry: Entry, row: int, text: str, expected: str) -> ContentFault:
        excerpt = text if len(text) <= SHOWN else text[:SHOWN] + "…"
        return ContentFault(
            f"The file {self.source.path}, line {self._line(row)}, column `{entry.source_column}`: "
            f"{excerpt!r} cannot be read as `{entry.name}`",
            why=expected,
            fix=self._fix_of_value(entry, row, text),
        )

    def _fix_of_value(self, entry: Entry, row: int, text: str) -> str:
        """Return what to do with a value that the dictionary does not explain."""
        if row == 0 and not self.dictionary.header and text.strip() == entry.source_column:
            return "if this line is a header, leave out `header` and `columns` in the dictionary"
        if not text.strip():
            return 'fill in the value, or add "" to `missing`: a blank field is not listed there'
        setting = how_to_read(text) if entry.reads_numbers and not entry.date_format else ""
        if setting:
            return setting
        if entry.reads_numbers:
            return "correct the file, or add this text to `missing` if it means missing"
        return "correct the file, or add the code (or what means missing) to the dictionary"

    def _ids(self, texts: Mapping[str, Texts]) -> Texts:
        if self.dictionary.patient == ROW_NUMBER:
            rows = len(next(iter(texts.values())))
            return tuple(str(row + 1) for row in range(rows))
        ids = tuple(text.strip() for text in texts[self.dictionary.patient])
        if all(ids) and "".join(ids).isprintable() and max(map(len, ids), default=0) <= LONGEST_ID:
            return ids
        row = next(row for row, patient in enumerate(ids) if not _usable(patient))
        raise self._fault(
            f"line {self._line(row)} has no usable patient id",
            f"fill in the column `{self.dictionary.patient}`, or remove the line",
        )

    def _refuse_duplicates(self, keys: Texts) -> None:
        if len(set(keys)) == len(keys):
            return
        twice = [patient for patient, count in Counter(keys).items() if count > 1]
        first = keys.index(twice[0])
        second = keys.index(twice[0], first + 1)
        patients = "patient is" if len(twice) == 1 else "patients are"
        raise self._fault(
            f"lines {self._line(first)} and {self._line(second)} are of the same patient "
            f"({len(twice)} {patients} on more than one line)",
            "provide one row per patient: join the rows, keep one by a stated rule, or name "
            "another column under `patient` in the dictionary",
        )

    def _without_empty_rows(
        self, texts: dict[str, list[str]]
    ) -> tuple[dict[str, list[str]], tuple[int, ...]]:
        """Drop rows at the end in which every field is blank, and return the lines they were on.

        Such a row elsewhere is an error: it may be a patient whose values were lost.
        """
        empty = self._empty_rows(self._blank_rows(texts))
        rows = len(next(iter(texts.values())))
        end = rows
        while end - 1 in empty:
            end -= 1
        if inner := sorted(row for row in empty if row < end):
            raise self._fault(
                f"line {empty[inner[0]]} is empty in every column",
                "remove the line, or fill it in",
            )
        lines = tuple(empty[row] for row in range(end, rows))
        return {name: column[:end] for name, column in texts.items()} if lines else texts, lines

    def _blank_rows(self, texts: Mapping[str, Texts]) -> list[int]:
        """Return the rows that are blank in every column that is read."""
        columns = iter(texts.values())
        blank = [row for row, text in enumerate(next(columns)) if not text or text.isspace()]
        for column in columns:
            blank = [row for row in blank if not column[row].strip()]
        return blank

    def _empty_rows(self, rows: Sequence[int]) -> dict[int, int]:
        """Return the line of each of these rows that is blank in every other column as well."""
        wanted = set(rows)
        found: dict[int, int] = {}
        for row, (line, fields) in enumerate(self.text.rows() if wanted else ()):
            if row in wanted and not any(field.strip() for field in fields):
                found[row] = line
        return found

    def _lines_of_rows(self, kept: BoolArray) -> tuple[tuple[int, int], ...]:
        """Return row and line of the first patients left out, if the row is a patient's only id."""
        if self.dictionary.patient != ROW_NUMBER:
            return ()
        rows = np.flatnonzero(~kept)[:SHOWN_ROWS].tolist()
        return tuple((row + 1, self._line(row)) for row in rows)

    def _texts(self) -> dict[str, list[str]]:
        wanted = sorted(self.dictionary.needed_columns)
        if self.text.columns == 1:
            return {wanted[0]: self._only_column()}
        positions = [self.text.positions[name] for name in wanted]
        columns = self._run(", ".join(f"c{position}" for position in positions))
        self._refuse_fields_beyond_the_last()
        return dict(zip(wanted, columns, strict=True))

    def _only_column(self) -> list[str]:
        """Return the fields of a file with one column, whose blank lines DuckDB takes for rows."""
        if any(self._problem_of_row(fields, {0}) for _, fields in self.text.rows()):
            raise self._not_csv()
        return [fields[0] for _, fields in self.text.rows()]

    def _run(self, names: str, *, padded: bool = False) -> list[list[Any]]:
        query = READ.format(
            names=names,
            delim=_literal(self.dictionary.delimiter),
            columns="{"
            + ", ".join(f"c{index}: 'VARCHAR'" for index in range(self.text.columns + padded))
            + "}",
            padding=str(padded).lower(),
            parallel=str(not padded).lower(),
            null=_literal(NO_TEXT),
            longest=LONGEST_LINE,
        )
        try:
            with duckdb.connect(config=DUCKDB) as connection:
                columns = connection.execute(query, [self.text.path]).fetchnumpy()
        except duckdb.Error as error:
            raise self._not_csv() from error
        return [np.ma.filled(np.ma.asarray(column), "").tolist() for column in columns.values()]

    def _refuse_fields_beyond_the_last(self) -> None:
        """Refuse rows with one empty field too many, which DuckDB passes over."""
        if not self.text.may_end_with_delimiter():
            return
        beyond = f"count(c{self.text.columns})"
        if self._run(beyond, padded=True)[0] != [0]:
            raise self._not_csv()

    def _not_csv(self) -> ContentFault:
        """Return the fault of the first row that is not as declared."""
        needed = set(self.text.positions.values())
        for line, fields in self.text.rows():
            why = self._problem_of_row(fields, needed)
            if why:
                return self._fault(f"line {line}: {why[0]}", why[1])
        return self._fault(
            "this is not CSV as the dictionary describes it",
            "save it again as CSV with quotes around every value",
        )

    def _problem_of_row(self, fields: Sequence[str], needed: set[int]) -> tuple[str, str] | None:
        if len(fields) != self.text.columns:
            return (
                f"{self.text.columns} columns are expected, and the line has {len(fields)}",
                "correct the line; a value that contains the delimiter needs quotes",
            )
        if sum(map(len, fields)) > LONGEST_LINE:
            return f"the line is longer than {LONGEST_LINE} bytes", "shorten it"
        for index in sorted(needed):
            if wrong := SURROGATES.search(fields[index]):
                return not_utf8(ord(wrong[0]) - 0xDC00), ENCODING_FIX
        return None

    def _line(self, row: int) -> int:
        """Return the line, counted from 1, on which a row, counted from 0, ends."""
        return next(line for index, (line, _) in enumerate(self.text.rows()) if index == row)

    def _fault(self, why: str, fix: str) -> ContentFault:
        return unusable(self.source.path, why, fix)


def _usable(patient: str) -> bool:
    return bool(patient) and len(patient) <= LONGEST_ID and patient.isprintable()


def _quality(entry: Entry, column: FloatArray) -> ColumnQuality:
    missing = int(np.isnan(column).sum())
    if entry.bounds is None:
        return ColumnQuality(entry.name, missing)
    low, high = entry.bounds
    return ColumnQuality(entry.name, missing, int((column < low).sum()), int((column > high).sum()))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
