"""Sizes that a study declares, multiplied and compared with their limits before anything is built.

A few words can name a table of 10^18 cells. So each task states the sizes of everything that either
side builds from it, as sums of products of counts that are in the study already. They are checked
when the study is read, before any other code can use it: in time and memory that do not depend on
the sizes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from protocols.errors import ProtocolFault
from protocols.numerics.mechanism import MAX_COORDINATES, MAX_ROUNDS

MAX_CELLS = 100_000
FEWER_CELLS = "use fewer groups or coarser edges"


@dataclass(frozen=True)
class Size:
    """How many `units` the thing `name` has: the sum of the products of `terms`, and its limit.

    `why` says what each unit costs, `fix` what to change in the study.
    """

    name: str
    units: str
    terms: Iterable[Iterable[int]]
    limit: int
    why: str
    fix: str

    @classmethod
    def of_table(cls, name: str, *terms: Iterable[int]) -> Self:
        """Return the size of a table of counts."""
        why = "each cell gets noise, and most cells would have no patient"
        return cls(name, "cells", terms, MAX_CELLS, why, FEWER_CELLS)

    @classmethod
    def of_model(cls, *terms: Iterable[int], fix: str) -> Self:
        """Return the size of a model vector."""
        why = "every round sums each of them, with noise"
        return cls("model", "weights", terms, MAX_COORDINATES, why, fix)

    @classmethod
    def of_steps(cls, rounds: int, steps: int) -> Self:
        """Return the number of local steps of all rounds."""
        why = "each step is a separate noisy release"
        fix = "choose fewer rounds, or fewer `steps`"
        return cls("training", "local steps in all rounds", [(rounds, steps)], MAX_ROUNDS, why, fix)

    @property
    def within(self) -> bool:
        """Whether the size is within its limit; counting stops as soon as it is not."""
        total = 0
        for factors in self.terms:
            total += product_up_to(factors, self.limit)
            if total > self.limit:
                return False
        return True

    def require(self) -> None:
        """Raise ProtocolFault if the size is above its limit."""
        if not self.within:
            raise ProtocolFault(
                f"The {self.name} has more than {self.limit} {self.units}",
                why=self.why,
                fix=self.fix,
            )


def product_up_to(factors: Iterable[int], limit: int) -> int:
    """Return the product of whole numbers, each at least 1, or the first part of it above `limit`.

    So no number is much longer than `limit` and one factor together.
    """
    result = 1
    for factor in factors:
        result *= factor
        if result > limit:
            return result
    return result
