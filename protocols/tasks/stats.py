"""`stats/count` and `stats/histogram`: how many patients there are, by declared strata."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from protocols.numerics.mechanism import Mechanism
from protocols.tasks.features import Columns, Feature, by_name
from protocols.tasks.layout import Grouping, IntArray, cell_indices, cell_labels
from protocols.tasks.schedule import COHORT_FLOOR_FRACTION, COUNT, HISTOGRAM, cohort_floor, counted
from protocols.tasks.sizes import Size

Strata = Annotated[tuple[Grouping, ...], Field(max_length=8)]
SmallestCell = Annotated[int, Field(ge=5, le=1_000_000)]


class _Table(BaseModel):
    """Shared parts of both statistics: every patient is counted in exactly one cell.

    `by_country` is for tables with a block for each country (`protocols.tasks.by_country`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    strata: Strata = ()
    patients_bound: Annotated[int, Field(ge=1, le=10**9)]
    smallest_cell: SmallestCell = 10
    by_country: bool = Field(default=False, exclude_if=lambda chosen: not chosen)

    @property
    def phase(self) -> str:
        """Name of the one release that opens the table."""
        return COUNT

    @property
    def groupings(self) -> tuple[Grouping, ...]:
        """Return the groupings that the cells combine; the last one varies fastest."""
        return self.strata

    def check(self, features: Sequence[Feature]) -> None:
        """Raise ProtocolFault if the table does not fit the declared features."""
        table = by_name(features)
        for grouping in self.groupings:
            grouping.check(table, "table")
        Size.of_table("table", self._group_counts(features)).require()

    def names_used(self, features: Sequence[Feature]) -> tuple[str, ...]:
        """Return the features whose values the task reads."""
        del features
        return tuple(dict.fromkeys(grouping.feature for grouping in self.groupings))

    def cell_count(self, features: Sequence[Feature]) -> int:
        """Return the number of cells of a table that `check` has passed."""
        return math.prod(self._group_counts(features))

    def _group_counts(self, features: Sequence[Feature]) -> list[int]:
        table = by_name(features)
        return [grouping.size(table[grouping.feature]) for grouping in self.groupings]

    def cells(self, features: Sequence[Feature]) -> tuple[tuple[str, ...], ...]:
        """Return the labels of each cell, one for each grouping."""
        return cell_labels(self.groupings, by_name(features))

    def cell_of(self, features: Sequence[Feature], columns: Columns, patients: int) -> IntArray:
        """Return each patient's cell, as an index into `cells`."""
        return cell_indices(self.groupings, by_name(features), columns, patients)

    def schedule(self, features: Sequence[Feature]) -> tuple[Mechanism, ...]:
        """Return the templates of every release: cohort floor, then the table."""
        table = counted(self.phase, self.cell_count(features), 1, self.patients_bound)
        return cohort_floor(self.patients_bound), table

    def cost_fractions(self) -> tuple[float, ...]:
        """Return which part of the cost each release of `schedule` has; they sum to one."""
        return COHORT_FLOOR_FRACTION, 1 - COHORT_FLOOR_FRACTION


class CountPatients(_Table):
    """Number of patients in each stratum of the population; one number if none is declared."""

    kind: Literal["stats/count"] = "stats/count"


class CountByFeature(_Table):
    """Histogram of one feature within each stratum."""

    kind: Literal["stats/histogram"] = "stats/histogram"
    of: Grouping

    @property
    def phase(self) -> str:
        """Name of the one release that opens the table."""
        return HISTOGRAM

    @property
    def groupings(self) -> tuple[Grouping, ...]:
        """Return the groupings that the cells combine; the last one varies fastest."""
        return (*self.strata, self.of)
