"""How a study evaluates its model: on which patients, in which bins, for which subgroups.

Held-out patients are summed by score and label (`protocols.tasks.score_table`), or by their error
if the target is a number (`protocols.tasks.error_table`). AUC, accuracy and calibration are
computed from the noisy sum after it is opened.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from protocols.tasks.features import Feature
from protocols.tasks.layout import Grouping

EVERYBODY = "everybody"
MOST_EDGES = 100
NARROWEST = 1e-9
"""The least width of a bin: in a narrower one the place of a score cannot be computed."""
USUAL_SHARE = 0.2
Edge = Annotated[float, Field(gt=0, lt=1)]


class Evaluation(BaseModel):
    """How a trained model is evaluated on held-out patients.

    `held_out` is the share of patients not used in training; the node chooses them by a keyed hash.
    `edges` are the public edges between the bins: of the score if the target is yes or no or a
    category, else of the absolute error as a share of the target's range. A study without them is
    of an earlier version: its table has `bins` equal bins and only counts (docs/adr/0036).
    `prevalence` is the public guess from which edges are proposed for a yes/no target.
    Groups of fewer than `smallest_cell` patients (by the noisy count) are suppressed.
    `share` is the part of the study's privacy budget that evaluation may use, if the costs of
    training and evaluation are added (`accounting: 1`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    held_out: Annotated[float, Field(ge=0.05, le=0.5)] = 0.3
    bins: Annotated[int, Field(ge=4, le=100)] = 10
    edges: Annotated[tuple[Edge, ...], Field(max_length=MOST_EDGES)] = Field(
        default=(), exclude_if=lambda edges: not edges
    )
    prevalence: Annotated[float, Field(ge=1e-4, le=1 - 1e-4)] | None = Field(
        default=None, exclude_if=lambda prevalence: prevalence is None
    )
    subgroup: Grouping | None = None
    share: Annotated[float, Field(gt=0, lt=0.9)] = USUAL_SHARE
    smallest_cell: Annotated[int, Field(ge=5, le=1_000)] = 10

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.bins % 2:
            raise ValueError("evaluation: bins must be even, so that 0.5 is a boundary")
        ends = (0.0, *self.edges, 1.0)
        if any(low >= high for low, high in pairwise(ends)):
            raise ValueError("evaluation: edges must be in ascending order, each one once")
        if any(high - low < NARROWEST for low, high in pairwise(ends)):
            raise ValueError(f"evaluation: edges, 0 and 1 must be at least {NARROWEST:g} apart")
        return self

    @property
    def counts_only(self) -> bool:
        """Whether the study is of an earlier version, whose table has nothing but counts."""
        return not self.edges

    def boundaries(self) -> tuple[float, ...]:
        """Return the edges with 0 and 1, or those of equal bins if the study declares none."""
        equal = tuple(number / self.bins for number in range(1, self.bins))
        return 0.0, *(self.edges or equal), 1.0

    def group_count(self, features: Mapping[str, Feature]) -> int:
        """Return the number of subgroups; one if none is declared."""
        subgroup = self.subgroup
        return 1 if subgroup is None else subgroup.size(features[subgroup.feature])

    def groups(self, features: Mapping[str, Feature]) -> tuple[str, ...]:
        """Return the names of the subgroups; one group of everybody if none is declared."""
        if self.subgroup is None:
            return (EVERYBODY,)
        return self.subgroup.labels(features[self.subgroup.feature])
