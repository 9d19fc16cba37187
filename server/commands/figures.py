"""The figures of a released result as lines of text: an evaluation, or a table."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from governance.results.result import Result
from governance.runtime.safe_text import named
from governance.runtime.wording import SHOWN_DECIMALS, exact, interval_text
from protocols.tasks import Family, Feature, Training

UNRELEASED = {
    "too noisy": "too noisy (at this ε, for this number of patients)",
    "too coarse": "too coarse (too many patients in one bin of the evaluation)",
}
SHARES_OF_RANGE = ("mean_absolute_error", "mean_residual")
"""Figures of a numeric target that are shares of its range."""
NARROWEST, WIDEST = 1e-9, 1e12
"""Ranges between these are shown in the target's unit; beyond them, digits would say nothing."""
EVALUATION_HEAD = "figures: value [95 % interval, which counts noise and sampling]"
TABLE_HEAD = "counts: value [95 % interval, which counts the noise only]"


def figure_lines(result: Result) -> Iterator[str]:
    """Yield the lines of every figure, after one that says what the intervals are."""
    if result.evaluation:
        yield f"  {EVALUATION_HEAD}"
        target = _numeric_target(result)
        if target is not None:
            low, high = map(exact, target.limits)
            yield f"  errors are shares of the range of {named(target.name)}, {low} to {high}"
        for group in (result.evaluation["everybody"], *result.evaluation["subgroups"]):
            yield from _group_lines(group, target)
    if cells := (result.table or {}).get("cells", []):
        yield f"  {TABLE_HEAD}"
        yield from map(cell_line, cells)


def _numeric_target(result: Result) -> Feature | None:
    """Return the predicted feature if it is a number, and errors can be shown in its unit."""
    task = result.task
    if not isinstance(task, Training) or task.family is not Family.LINEAR:
        return None
    target = task.target_feature(result.features)
    return target if NARROWEST < _width(target) < WIDEST else None


def _width(target: Feature) -> float:
    low, high = target.limits
    return high - low


def _group_lines(group: Mapping[str, Any], target: Feature | None) -> Iterator[str]:
    yield f"  held-out patients, {named(group['group'])}:"
    for name, estimate in group.items():
        if name != "group":
            of_range = target if name in SHARES_OF_RANGE else None
            text = _estimate_text(estimate, of_range)
            yield f"    {named(name).replace('_', ' '):30} {text}"


def _estimate_text(estimate: Any, target: Feature | None) -> str:
    """Return a figure; `target` is given if it is a share of the range of this feature."""
    if estimate is None:
        return "suppressed (too few patients)"
    if isinstance(estimate, str):
        return UNRELEASED[estimate]
    if target is None:
        return interval_text(estimate)
    return f"{interval_text(estimate)} of the range: {_in_unit(estimate, target)}"


def _in_unit(estimate: Mapping[str, float], target: Feature) -> str:
    """Return a share of the target's range in the target's unit, with about as many digits."""
    width = _width(target)
    decimals = max(0, SHOWN_DECIMALS - math.floor(math.log10(width)))
    scaled = {name: width * share for name, share in estimate.items()}
    unit = f" {named(target.unit)}" if target.unit else ""
    return f"{interval_text(scaled, decimals)}{unit}"


def cell_line(cell: Mapping[str, Any]) -> str:
    """Return the line of one cell of a table."""
    name = ", ".join(map(named, cell["labels"])) or "all patients"
    count = (
        "suppressed (too small to show)"
        if cell["suppressed"]
        else "{}  [{}, {}]".format(*(named(str(cell[key])) for key in ("count", "low", "high")))
    )
    return f"    - {name:32} {count}"
