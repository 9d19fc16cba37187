"""Reads records from a CSV file with its data dictionary, through DuckDB.

Reading is strict. A line with too few or too many fields, an open quote, a value that is not UTF-8
or that the dictionary does not explain, a patient on two lines: each is an error that names its
line, and nothing is read. Columns that the dictionary does not name are ignored. Messages are for
the operator of this node only, and may quote a value.
"""

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from client.errors import RecordFault
from client.records.dictionary import ROW_NUMBER, DataDictionary, Entry
from client.records.quality_report import EXPORT_AGAIN, ColumnQuality, QualityReport
from client.records.source import RecordedFeature, Records
from keys.errors import reason_of
from protocols.tasks.features import FloatArray
from protocols.wire.encoding import canonical_json, digest

LONGEST_LINE = 100_000
LONGEST_ID = 256
SHOWN = 40
HASH_CHUNK = 1024 * 1024
GLOB = frozenset("*?[]{}")
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
NOT_UTF_8 = "the text is not UTF-8"
TO_UTF_8 = "convert it to UTF-8, for example with `iconv -f latin1 -t utf-8`"
DUCKDB = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "threads": "2",
}
READ = (
    "SELECT {names} FROM read_csv(?, auto_detect=false, header={header}, delim={delim}, "
    "quote='\"', escape='\"', columns={columns}, strict_mode=true, null_padding=false, "
    "compression='none', max_line_size={longest})"
)
DUCKDB_REASONS = (
    (
        r"Expected Number of Columns: (\d+) Found: (\d+)",
        "{0} columns are expected, and the line has {1}",
    ),
    (r"unterminated quote", "a quoted value has no closing quote"),
    (r"not utf-8", NOT_UTF_8),
    (r"[Mm]ax.{0,12}line size", f"the line is longer than {LONGEST_LINE} bytes"),
)
Texts = Sequence[str]


@dataclass(frozen=True)
class CsvSource:
    """A CSV file with one row per patient, and its data dictionary."""

    path: Path
    dictionary: DataDictionary

    def features(self) -> Mapping[str, RecordedFeature]:
        """Return the features that the dictionary offers, by name."""
        return self.dictionary.recorded()

    def read(self, opted_out: frozenset[str] = frozenset()) -> Records:
        """Return all patients except those opted out. Raises RecordFault with line and column."""
        file_digest = self._file_digest()
        texts = self._texts()
        if self._file_digest() != file_digest:
            raise self._fault(
                "the file changed while it was being read", "try again when the file is complete"
            )
        ids = self._ids(texts)
        included = np.array([patient not in opted_out for patient in ids], dtype=np.bool_)
        columns = {
            entry.name: self._column(entry, texts[entry.source_column])
            for entry in self.dictionary.features
        }
        kept_columns = {name: column[included] for name, column in columns.items()}
        return Records(
            ids=tuple(patient for patient in ids if patient not in opted_out),
            features=self.features(),
            columns=kept_columns,
            version=digest(canonical_json([file_digest, self.dictionary.digest()])),
            report=self._report(kept_columns, ids, included, opted_out),
        )

    def _report(
        self,
        columns: Mapping[str, FloatArray],
        ids: Texts,
        kept: np.ndarray[Any, np.dtype[np.bool_]],
        opted_out: frozenset[str],
    ) -> QualityReport:
        return QualityReport(
            rows=len(ids),
            opted_out=int((~kept).sum()),
            unknown_opt_outs=tuple(sorted(opted_out - set(ids))),
            columns=tuple(
                _quality(entry, columns[entry.name]) for entry in self.dictionary.features
            ),
            header=self.dictionary.header,
        )

    def _column(self, entry: Entry, texts: Texts) -> FloatArray:
        values: dict[str, float] = {}
        for text in dict.fromkeys(texts):
            try:
                values[text] = self.dictionary.value(entry, text)
            except ValueError as error:
                raise self._bad_value(entry, texts.index(text), text, str(error)) from error
        return np.fromiter((values[text] for text in texts), dtype=np.float64, count=len(texts))

    def _bad_value(self, entry: Entry, row: int, text: str, expected: str) -> RecordFault:
        excerpt = text if len(text) <= SHOWN else text[:SHOWN] + "…"
        return RecordFault(
            f"The file {self.path}, line {self._line(row)}, column `{entry.source_column}`: "
            f"{excerpt!r} cannot be read as `{entry.name}`",
            why=expected,
            fix=_fix_of_value(entry, text),
        )

    def _ids(self, texts: Mapping[str, Texts]) -> Texts:
        if self.dictionary.patient == ROW_NUMBER:
            rows = len(next(iter(texts.values())))
            return tuple(str(row + 1) for row in range(rows))
        ids = tuple(text.strip() for text in texts[self.dictionary.patient])
        for row, patient in enumerate(ids):
            if not patient or len(patient) > LONGEST_ID or not patient.isprintable():
                raise self._fault(
                    f"line {self._line(row)} has no usable patient id",
                    f"fill in the column `{self.dictionary.patient}`, or remove the line",
                )
        self._refuse_duplicates(ids)
        return ids

    def _refuse_duplicates(self, ids: Texts) -> None:
        twice = [patient for patient, count in Counter(ids).items() if count > 1]
        if not twice:
            return
        first = ids.index(twice[0])
        second = ids.index(twice[0], first + 1)
        raise self._fault(
            f"lines {self._line(first)} and {self._line(second)} are of the same patient "
            f"({len(twice)} patients are on more than one line)",
            "provide one row per patient: join the rows, keep one by a stated rule, or name "
            "another column under `patient` in the dictionary",
        )

    def _texts(self) -> dict[str, list[str]]:
        names = self._column_names()
        wanted = sorted(self.dictionary.needed_columns)
        query = READ.format(
            names=", ".join(_identifier(name) for name in wanted),
            header=str(self.dictionary.header).lower(),
            delim=_literal(self.dictionary.delimiter),
            columns="{" + ", ".join(f"{_literal(name)}: 'VARCHAR'" for name in names) + "}",
            longest=LONGEST_LINE,
        )
        return dict(zip(wanted, self._run(query), strict=True))

    def _run(self, query: str) -> list[list[str]]:
        try:
            with duckdb.connect(config=DUCKDB) as connection:
                columns = connection.execute(query, [str(self.path.resolve())]).fetchnumpy()
        except duckdb.Error as error:
            why = _duckdb_reason(str(error))
            fix = TO_UTF_8 if why.endswith(NOT_UTF_8) else "correct the file"
            raise self._fault(why, fix) from error
        return [np.ma.filled(np.ma.asarray(column), "").tolist() for column in columns.values()]

    def _column_names(self) -> Sequence[str]:
        if not self.dictionary.header:
            return self.dictionary.columns
        names = self._header()
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise self._fault(
                f"the header names {', '.join(twice)} twice", "rename one of the columns"
            )
        absent = sorted(self.dictionary.needed_columns - set(names))
        if absent:
            present = (
                f"it has {', '.join(names)[:1000]}" if any(names) else "its first line is empty"
            )
            raise self._fault(
                f"the file has no column {', '.join(f'`{name}`' for name in absent)}; {present}",
                "correct `column` (or `patient`) in the dictionary, or `delimiter`",
            )
        return names

    def _header(self) -> list[str]:
        with self.path.open("rb") as handle:
            first = handle.readline(LONGEST_LINE)
        if not first:
            raise self._fault("the file is empty", EXPORT_AGAIN)
        try:
            return next(csv.reader([first.decode("utf-8-sig")], **self._dialect()), [])
        except UnicodeDecodeError as error:
            raise self._fault("the first line is not UTF-8 text", TO_UTF_8) from error
        except csv.Error as error:
            raise self._fault("the first line is not CSV", "correct the file") from error

    def _line(self, row: int) -> int:
        """Return the line, counted from 1, on which a row, counted from 0, ends."""
        with self.path.open(encoding="utf-8-sig", errors="replace", newline="") as handle:
            reader = csv.reader(handle, **self._dialect())
            rows = (reader.line_num for fields in reader if fields)
            return next(islice(rows, row + self.dictionary.header, None), 0)

    def _dialect(self) -> dict[str, Any]:
        return {"delimiter": self.dictionary.delimiter}

    def _file_digest(self) -> str:
        if GLOB & set(str(self.path.resolve())):
            raise self._fault(
                "its path contains one of * ? [ ] { }", "rename the file or its folder"
            )
        sha = hashlib.sha256()
        try:
            with self.path.open("rb") as handle:
                while chunk := handle.read(HASH_CHUNK):
                    sha.update(chunk)
        except OSError as error:
            raise self._fault(reason_of(error)) from error
        return sha.hexdigest()

    def _fault(
        self, why: str, fix: str = "check the path and the file's permissions"
    ) -> RecordFault:
        return RecordFault(f"The records in {self.path} cannot be used", why=why, fix=fix)


def _fix_of_value(entry: Entry, text: str) -> str:
    """Return what to do with a value that the dictionary does not explain."""
    if entry.reads_numbers and DECIMAL_COMMA.fullmatch(text.strip()):
        return "write the numbers of this column with a decimal point, such as 36.6"
    if entry.reads_numbers:
        return "correct the file, or add this text to `missing` if it means missing"
    return "correct the file, or add the code (or what means missing) to the dictionary"


def _quality(entry: Entry, column: FloatArray) -> ColumnQuality:
    missing = int(np.isnan(column).sum())
    if entry.bounds is None:
        return ColumnQuality(entry.name, missing)
    low, high = entry.bounds
    return ColumnQuality(entry.name, missing, int((column < low).sum()), int((column > high).sum()))


def _duckdb_reason(message: str) -> str:
    line = re.search(r"Line: (\d+)", message)
    location = f"line {line.group(1)}: " if line else ""
    for pattern, sentence in DUCKDB_REASONS:
        match = re.search(pattern, message)
        if match:
            return location + sentence.format(*match.groups())
    return f"{location}this is not CSV as the dictionary describes it"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _identifier(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
