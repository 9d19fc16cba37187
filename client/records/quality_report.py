"""A local report on data quality, for the node's operator only; it is never sent."""

from collections.abc import Iterator
from dataclasses import dataclass

from governance.runtime.wording import counted

EXPORT_AGAIN = "export the records again"
"""What to do if the file has no patient."""


@dataclass(frozen=True)
class ColumnQuality:
    """The numbers of missing values of a feature, and of values outside its bounds."""

    feature: str
    missing: int
    below: int = 0
    above: int = 0

    def sentence(self, rows: int) -> str:
        """Return one line about this feature."""
        share = f"{self.missing} of {rows} missing"
        outside = f"; {self.below} below and {self.above} above its bounds (clipped when used)"
        return f"{self.feature}: {share}{outside if self.below or self.above else ''}"


@dataclass(frozen=True)
class QualityReport:
    """The numbers of rows and opted-out patients, and the quality of each feature.

    `empty_lines` are the lines of empty rows at the end. If rows have no ids, `left_out_rows` are
    the number and the line of the first rows that opted out.
    """

    rows: int
    opted_out: int
    unknown_opt_outs: tuple[str, ...]
    columns: tuple[ColumnQuality, ...]
    header: bool = True
    empty_lines: tuple[int, ...] = ()
    left_out_rows: tuple[tuple[int, int], ...] = ()

    @property
    def warning(self) -> str:
        """What is wrong with the records as a whole; empty if there is a patient."""
        if self.rows:
            return ""
        return f"the file has {'a header and ' if self.header else ''}no patient"

    def lines(self) -> tuple[str, ...]:
        """Return the report as lines of text."""
        patients = counted(self.rows, "patient")
        rows = f"{patients} read, {self.opted_out} left out because they opted out"
        kept = self.rows - self.opted_out
        return (rows, *self._remarks(), *(column.sentence(kept) for column in self.columns))

    def _remarks(self) -> Iterator[str]:
        if self.left_out_rows:
            more = ", …" if self.opted_out > len(self.left_out_rows) else ""
            listed = ", ".join(f"row {row} (line {line})" for row, line in self.left_out_rows)
            yield f"left out: {listed}{more}"
        if self.unknown_opt_outs:
            yield _unknown(len(self.unknown_opt_outs))
        if self.empty_lines:
            rows = counted(len(self.empty_lines), "empty row", "empty rows")
            yield f"{rows} at the end, from line {self.empty_lines[0]}: no patient"


def _unknown(ids: int) -> str:
    absent = counted(ids, "opted-out id is", "opted-out ids are")
    return f"{absent} not in the data: check {'it' if ids == 1 else 'them'}"
