"""A local report on data quality, for the node's operator only; it is never sent."""

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
    """The numbers of rows and opted-out patients, and the quality of each feature."""

    rows: int
    opted_out: int
    unknown_opt_outs: tuple[str, ...]
    columns: tuple[ColumnQuality, ...]
    header: bool = True

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
        unknown = _unknown(len(self.unknown_opt_outs))
        head = (rows, unknown) if self.unknown_opt_outs else (rows,)
        kept = self.rows - self.opted_out
        return (*head, *(column.sentence(kept) for column in self.columns))


def _unknown(ids: int) -> str:
    absent = counted(ids, "opted-out id is", "opted-out ids are")
    return f"{absent} not in the data: check {'it' if ids == 1 else 'them'}"
