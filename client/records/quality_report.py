"""A local report on data quality: for the node's operator, never sent anywhere."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ColumnQuality:
    """How one feature was filled: missing values, and values outside the dictionary's bounds."""

    feature: str
    missing: int
    below: int = 0
    above: int = 0

    def sentence(self, rows: int) -> str:
        """Return one plain line about this feature."""
        share = f"{self.missing} of {rows} missing"
        outside = f"; {self.below} below and {self.above} above its bounds (clipped when used)"
        return f"{self.feature}: {share}{outside if self.below or self.above else ''}"


@dataclass(frozen=True)
class QualityReport:
    """What was read, who is left out, and how each feature is filled."""

    rows: int
    opted_out: int
    unknown_opt_outs: tuple[str, ...]
    columns: tuple[ColumnQuality, ...]

    def lines(self) -> tuple[str, ...]:
        """Return the report as plain lines."""
        left_out = f"{self.rows} patients read, {self.opted_out} left out because they opted out"
        unknown = f"{len(self.unknown_opt_outs)} opted-out ids are not in the data: check them"
        head = (left_out, unknown) if self.unknown_opt_outs else (left_out,)
        kept = self.rows - self.opted_out
        return (*head, *(column.sentence(kept) for column in self.columns))
