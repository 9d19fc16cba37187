"""The form of the figures in a result: an evaluation with intervals, or a table of counts.

A result is read with a signature of the coordinator, which says who wrote it, and not that it can
be shown. So its figures are checked when it is read, and whoever shows them need not check again.
"""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from governance.documents.problems import first_problem

LARGEST_FIGURE = 2**53
"""Of counts and figures: whole numbers up to this are exact in JSON."""
Number = Annotated[float, Field(ge=-LARGEST_FIGURE, le=LARGEST_FIGURE, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=-LARGEST_FIGURE, le=LARGEST_FIGURE)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class Interval(_Part):
    """A figure with its 95 % interval."""

    value: Number
    low: Number
    high: Number


class GroupFigures(_Part):
    """The figures of one group of held-out patients by name; None if suppressed."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")
    __pydantic_extra__: dict[str, Interval | None]

    group: str
    patients: Interval | None


class EvaluationFigures(_Part):
    """The figures of all held-out patients, and of each subgroup."""

    everybody: GroupFigures
    subgroups: list[GroupFigures]


class CellFigures(_Part):
    """One cell of a table; a suppressed one has no count."""

    labels: list[str]
    count: Count | None
    low: Count | None
    high: Count | None
    suppressed: bool

    @model_validator(mode="after")
    def _absent_if_suppressed(self) -> Self:
        if {self.count is None, self.low is None, self.high is None} != {self.suppressed}:
            raise ValueError("a cell has a count and an interval unless it is suppressed")
        return self


class TableFigures(_Part):
    """A released table."""

    groupings: list[str]
    cells: list[CellFigures]


def _checked(kind: type[BaseModel]) -> AfterValidator:
    """Return a validator that leaves a value as it is, which is signed, if it has this form."""

    def check(value: Any) -> Any:
        if value is not None:
            try:
                kind.model_validate(value)
            except ValidationError as error:
                raise ValueError(first_problem(kind, error)) from error
        return value

    return AfterValidator(check)


EVALUATION, TABLE = _checked(EvaluationFigures), _checked(TableFigures)
