"""Measure how often intervals of released figures hold the exact figure: `make bench-figures`.

Each setting has a population whose exact figures are known (`bench.populations`). A release draws
held-out patients from it, adds up what nodes would add for them, and adds the noise that
calibration asks for; a normal distribution replaces the discrete Gaussian and the rounding.
Figures and intervals are computed by the code that computes those of every released result.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bench import populations
from bench.populations import ERRORS, FEW_SCORES, LEVELS, MISCALIBRATIONS, Population
from governance.budget.accounting import calibrate
from protocols.tasks import Family
from protocols.tasks.bin_edges import proposed_edges
from protocols.tasks.error_table import ErrorTable
from protocols.tasks.evaluation import Evaluation
from protocols.tasks.features import FloatArray
from protocols.tasks.schedule import EVALUATE, bounded
from protocols.tasks.score_table import ScoreTable
from server.learning.estimates import Ends, cell_noise_std
from server.learning.evaluate import ERROR_PANEL, SCORE_PANELS, error_sums, score_sums, share_right

RELEASES = 3_000
COUNTRIES = 4
DELTA = 1e-6
LOWEST, HIGHEST = 0.92, 0.99
FEWEST_RELEASED = 500
"""With fewer releases of a figure, its coverage is left out: it is too uncertain itself."""
RESULTS = Path(__file__).with_name("results") / "figures.json"
PATIENTS = (300, 3_000, 10_000, 100_000)
BUDGETS = (0.1, 1.0, 3.0)
PREVALENCES = (0.016, 0.1, 0.5)
SPREADS = (0.02, 0.1)
"""Of a numeric target's errors, as a share of its range."""
SHORT = {"expected_calibration_error": "ece"}


@dataclass(frozen=True)
class Setting:
    """What kind of target, how common, how shaped, how many held-out patients, and which ε."""

    family: Family
    prevalence: float
    shape: str
    patients: int
    epsilon: float


def settings() -> Iterator[Setting]:
    """Yield every setting; for a numeric target, the errors' spread is in place of a prevalence."""
    sizes = list(product(PATIENTS, BUDGETS))
    shapes = (*MISCALIBRATIONS, *FEW_SCORES)
    for prevalence, shape, size in product(PREVALENCES, shapes, sizes):
        yield Setting(Family.LOGISTIC, prevalence, shape, *size)
    for shape, size in product(MISCALIBRATIONS, sizes):
        yield Setting(Family.MULTINOMIAL, 1 / LEVELS, shape, *size)
    for spread, shape, size in product(SPREADS, ERRORS, sizes):
        yield Setting(Family.LINEAR, spread, shape, *size)


def table_of(setting: Setting) -> ScoreTable | ErrorTable:
    """Return the evaluation table with the edges that `study check` proposes."""
    yes_no = setting.family is Family.LOGISTIC
    evaluation = Evaluation(prevalence=setting.prevalence if yes_no else None)
    classes = 1 if setting.family is not Family.MULTINOMIAL else LEVELS
    edges = (0.0, *proposed_edges(setting.family, classes, evaluation), 1.0)
    if setting.family is Family.LINEAR:
        return ErrorTable(1, edges)
    return ScoreTable(classes, 1, edges, 2, placed=True)


@lru_cache(maxsize=64)
def population_of(family: Family, prevalence: float, shape: str, table: Any) -> Population:
    """Return the population of a setting."""
    if family is Family.LOGISTIC:
        return populations.scores(prevalence, shape, table)
    if family is Family.MULTINOMIAL:
        return populations.levels(shape, table, np.random.default_rng(0))
    return populations.errors(prevalence, shape, table)


@lru_cache(maxsize=64)
def noise_of(dimension: int, squared_norm: float, epsilon: float) -> float:
    """Return the noise of one opened cell, in patients, that calibration asks for."""
    template = bounded(EVALUATE, dimension, squared_norm, 10**6)
    mechanism = calibrate((template,), (1.0,), COUNTRIES, epsilon, DELTA)[0]
    return cell_noise_std(mechanism, COUNTRIES)


def measure(
    setting: Setting, generator: np.random.Generator, releases: int
) -> list[dict[str, Any]]:
    """Return a row for each figure of a setting."""
    table = table_of(setting)
    people = population_of(setting.family, setting.prevalence, setting.shape, table)
    return measure_people(setting, table, people, generator, releases)


def measure_people(
    setting: Setting,
    table: ScoreTable | ErrorTable,
    people: Population,
    generator: np.random.Generator,
    releases: int,
) -> list[dict[str, Any]]:
    """Return a row for each figure of a population, in place of the setting's own."""
    noise = noise_of(table.dimension, table.squared_norm, setting.epsilon)
    shares = people.shares / people.shares.sum()
    opened = generator.multinomial(setting.patients, shares, size=releases) @ people.adds
    opened = opened + generator.normal(0.0, noise, opened.shape)
    estimated = figures_of(setting.family, table, opened, noise)
    return [
        _row(name, setting, noise, people.exact[name], ends) for name, ends in estimated.items()
    ]


def figures_of(
    family: Family, table: ScoreTable | ErrorTable, opened: FloatArray, noise: float
) -> Mapping[str, Ends]:
    """Return every figure of opened sums (releases, dimension)."""
    if isinstance(table, ErrorTable):
        errors = error_sums(table, opened, noise)
        return {name: figure(errors) for name, figure in ERROR_PANEL.items()}
    classes = score_sums(table, opened, noise)
    panel = SCORE_PANELS[family]
    estimated = {name: figure(*classes) for name, figure in panel.items()}
    return estimated | share_right(table, opened, noise)


def _row(name: str, setting: Setting, noise: float, exact: float, ends: Ends) -> dict[str, Any]:
    released = np.isfinite(ends.low)
    value, low, high = (each[released] for each in ends)
    held = (low <= exact) & (exact <= high)
    some = int(released.sum()) >= FEWEST_RELEASED
    return {
        "figure": SHORT.get(name, name),
        "target": str(setting.family),
        "prevalence": setting.prevalence,
        "shape": setting.shape,
        "n": setting.patients,
        "epsilon": setting.epsilon,
        "noise": round(noise, 3),
        "coverage": round(float(held.mean()), 4) if some else None,
        "bias": round(float((value - exact).mean()), 6) if some else None,
        "width": round(float((high - low).mean()), 6) if some else None,
        "released_share": round(float(released.mean()), 4),
    }


def shortfalls(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the goals that are not met, in words; empty if all are."""
    return [problem for row in rows for problem in _problems(row)]


def _problems(row: Mapping[str, Any]) -> Iterator[str]:
    setting = {key: row[key] for key in ("figure", "target", "prevalence", "shape", "n", "epsilon")}
    few = row["shape"] in FEW_SCORES
    if row["coverage"] is not None and not LOWEST <= row["coverage"] <= (1.0 if few else HIGHEST):
        yield f"coverage {row['coverage']}: {setting}"
    useful = not few and row["n"] >= 10_000 and row["epsilon"] >= 1 and row["prevalence"] >= 0.1
    if useful and row["released_share"] < 1:
        yield f"released share {row['released_share']}: {setting}"


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print, for each figure, its settings, the extremes of coverage, and what was released."""
    print(f"{'figure':28}{'settings':>9}{'released':>10}{'coverage':>22}{'largest |bias|':>16}")
    for figure in dict.fromkeys(row["figure"] for row in rows):
        of = [row for row in rows if row["figure"] == figure]
        judged = [row for row in of if row["coverage"] is not None]
        covered = sorted(row["coverage"] for row in judged)
        middle = covered[len(covered) // 2]
        span = f"{covered[0]:.3f} {middle:.3f} {covered[-1]:.3f}"
        bias = max(abs(row["bias"]) for row in judged)
        released = np.mean([row["released_share"] for row in of])
        print(f"{figure:28}{len(of):9}{released:10.2f}{span:>22}{bias:16.4f}")


def main() -> int:
    """Run from the command line."""
    argparse.ArgumentParser(description="Measure the coverage of released intervals.").parse_args()
    generator = np.random.default_rng(12)
    rows = [row for each in settings() for row in measure(each, generator, RELEASES)]
    few = [row for row in rows if row["shape"] in FEW_SCORES]
    other = [row for row in rows if row["shape"] not in FEW_SCORES]
    print_table(other)
    print("\nmodels of few distinct scores, for which intervals are wide on purpose:")
    print_table(few)
    content = json.dumps({"rows": other, "few_scores": few}, indent=1)
    RESULTS.write_text(content + "\n", encoding="utf-8")
    missed = shortfalls(rows)
    print("\n".join(missed) if missed else "Every goal is met.")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
