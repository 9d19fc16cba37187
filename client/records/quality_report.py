"""A local report on data quality, for the node's operator only; it is never sent."""

from dataclasses import dataclass


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

    def lines(self) -> tuple[str, ...]:
        """Return the report as lines of text."""
        rows = f"{self.rows} patients read, {self.opted_out} left out because they opted out"
        unknown = f"{len(self.unknown_opt_outs)} opted-out ids are not in the data: check them"
        head = (rows, unknown) if self.unknown_opt_outs else (rows,)
        kept = self.rows - self.opted_out
        return (*head, *(column.sentence(kept) for column in self.columns))
