"""Measure accuracy against privacy on three public data sets: `make bench-utility`.

Everything runs in one process with the real contribution, rounding, noise and accounting code; only
transport and masks are left out, and they change no sum. Rounds and learning rate are those that a
draft with `auto` gets. Each resplit uses a third of every country's patients for testing. Test
accuracy is computed in the clear, which a benchmark may do and a node may not, so the whole ε goes
into training.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from bench import heart, public_data
from bench.public_data import DataSet
from client.records.cohort import BoolArray, Cohort
from client.tasks.assignment import Assignment
from governance.budget.accounting import calibrate, epsilon
from protocols.numerics.mechanism import Mechanism
from protocols.numerics.noise import DiscreteGaussian
from protocols.tasks import Feature, TrainGlm
from protocols.tasks.features import FloatArray
from protocols.tasks.schedule import TRAIN
from protocols.tasks.step_size import choose_rate, choose_rounds
from server.learning.optimiser import OptimiserState, step

DELTA = 1e-4
SEEDS = range(40)
TRAININGS = 30
"""Trainings of each resplit, each with fresh noise; a resplit's figure is their mean."""
BUDGETS = (1.0, 0.1, 0.05)
HOSPITALS = "heart disease"
TEST_SHARE = 3
HALF = 0.5
RESULTS = Path(__file__).with_name("results") / "utility.json"
PUBLISHED = (
    ("pooled training", 0.747),
    ("best federated method", 0.741),
    ("FedAvg", 0.698),
    ("differentially private, nominal ε=1", 0.685),
)
"""Mean accuracy over centres; Ogier du Terrail et al. 2022 (FLamby), Fed-Heart-Disease."""


@dataclass(frozen=True)
class Row:
    """One setting: the kind of noise, the number of honest countries, and the largest ε."""

    noise: str
    honest: int
    epsilon: float | None


ROWS = (
    Row("none", 4, None),
    *(Row("shared", honest, budget) for budget in BUDGETS for honest in (4, 3, 2)),
    *(Row("per-country", 1, budget) for budget in BUDGETS),
)
BY_COUNTRY = (
    Row("none", 4, None),
    *(Row("shared", honest, budget) for budget in BUDGETS for honest in (4, 2)),
)
"""The rows of the hospitals with a baseline for each."""


@dataclass(frozen=True)
class Scores:
    """Test figures of one resplit."""

    mean_of_centres: float
    pooled: float
    auc: float
    majority: float


@dataclass(frozen=True)
class Plan:
    """The task of one row with its rounds and learning rate, and its noise."""

    task: TrainGlm
    mechanism: Mechanism


@dataclass(frozen=True)
class Bench:
    """One data set, measured."""

    data: DataSet

    def plan(self, row: Row) -> Plan:
        """Return what `study check` would choose for this row's ε, without an evaluation."""
        first = self._calibrated(self.data.task, row)
        rounds = choose_rounds(*self._terms(first))
        plan = self._calibrated(self.data.task.model_copy(update={"rounds": rounds}), row)
        rate = choose_rate(*self._terms(plan)).rate
        return Plan(plan.task.model_copy(update={"learning_rate": rate}), plan.mechanism)

    def _terms(self, plan: Plan) -> tuple[TrainGlm, tuple[Feature, ...], Mechanism, int]:
        return plan.task, self.data.features, plan.mechanism, len(self.data.cohorts)

    def _calibrated(self, task: TrainGlm, row: Row) -> Plan:
        """Return the training release with the noise that the row's ε asks for."""
        template = next(m for m in task.schedule(self.data.features) if m.phase == TRAIN)
        if row.epsilon is None:
            return Plan(task, template)
        return Plan(task, calibrate((template,), (1.0,), row.honest, row.epsilon, DELTA)[0])

    def resplit(self, row: Row, plan: Plan, seed: int, trainings: int) -> Scores:
        """Train on one random split of every country and test on the rest, `trainings` times."""
        tests = list(self._test_masks(seed))
        pairs = zip(self.data.cohorts, tests, strict=True)
        countries = [Assignment(plan.task, *pair) for pair in pairs]
        models = [self._trained(countries, row, plan) for _ in range(trainings)]
        return mean_scores([self._scores(model, tests) for model in models])

    def _trained(self, countries: Sequence[Assignment], row: Row, plan: Plan) -> FloatArray:
        task, features, mechanism = plan.task, self.data.features, plan.mechanism
        state = OptimiserState.start(task.initial(features))
        for _ in range(mechanism.rounds):
            opened = sum(_contribution(one, mechanism, state.payload, row) for one in countries)
            state = step(task, features, mechanism, state, np.asarray(opened))
        return state.model

    def _test_masks(self, seed: int) -> Iterator[BoolArray]:
        generator = np.random.default_rng(seed)
        for cohort in self.data.cohorts:
            mask = np.zeros(cohort.patients, dtype=np.bool_)
            mask[generator.permutation(cohort.patients)[: cohort.patients // TEST_SHARE]] = True
            yield mask

    def _scores(self, model: FloatArray, tests: Sequence[BoolArray]) -> Scores:
        pairs = zip(self.data.cohorts, tests, strict=True)
        tested = [cohort.where(mask) for cohort, mask in pairs]
        truth = [self._truth(cohort) for cohort in tested]
        scores = [self._predict(model, cohort) for cohort in tested]
        right = [(s >= HALF) == t for s, t in zip(scores, truth, strict=True)]
        return Scores(
            mean_of_centres=fmean(float(one.mean()) for one in right),
            pooled=float(np.concatenate(right).mean()),
            auc=auc(np.concatenate(scores), np.concatenate(truth)),
            majority=fmean(map(self._majority, self.data.cohorts, tests)),
        )

    def _predict(self, model: FloatArray, cohort: Cohort) -> FloatArray:
        task, features = self.data.task, self.data.features
        return task.predict(features, model, task.rows(features, cohort.columns))[:, 0]

    def _truth(self, cohort: Cohort) -> BoolArray:
        return np.asarray(cohort.columns[self.data.task.target] == 1)

    def _majority(self, cohort: Cohort, test: BoolArray) -> float:
        truth = self._truth(cohort)
        usual = truth[~test].mean() >= HALF
        return float((truth[test] == usual).mean())


def _contribution(
    country: Assignment, mechanism: Mechanism, payload: bytes, row: Row
) -> NDArray[np.int64]:
    plain = country.lattice_sum(mechanism, payload, entropy=os.urandom)
    if row.epsilon is None:
        return plain
    return plain + DiscreteGaussian().draw(mechanism.noise_std, mechanism.dimension)


def auc(scores: FloatArray, truth: BoolArray) -> float:
    """Return the area under the ROC curve; ties count half."""
    ranks, yes = rankdata(scores), int(truth.sum())
    wins = ranks[truth].sum() - yes * (yes + 1) / 2
    return float(wins / (yes * (len(truth) - yes)))


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """Return the mean of each figure."""
    return Scores(*(fmean(column) for column in zip(*map(astuple, scores), strict=True)))


def measure(
    bench: Bench, row: Row, plan: Plan, pool: Pool, *, seeds: Sequence[int], trainings: int
) -> Scores:
    """Return the mean figures of one row over resplits."""
    if row.epsilon is not None:
        spent = epsilon((plan.mechanism,), row.honest, DELTA)
        if spent > row.epsilon:
            raise RuntimeError(f"the schedule costs ε = {spent}, more than {row.epsilon}")
    tasks = [(row, plan, seed, trainings) for seed in seeds]
    return mean_scores(pool.starmap(bench.resplit, tasks))


def workers(processes: int) -> Pool:
    """Return new worker processes; forked ones would share the noise generator."""
    return get_context("spawn").Pool(processes)


def as_json(data: str, row: Row, plan: Plan, scores: Scores) -> dict[str, Any]:
    """Return one row of `utility.json`."""
    return {
        "data": data,
        "noise": row.noise,
        "h": row.honest,
        "epsilon": row.epsilon,
        "delta": DELTA,
        "rounds": plan.task.rounds,
        "learning_rate": plan.task.learning_rate,
        "mean_of_centres": round(scores.mean_of_centres, 4),
        "pooled": round(scores.pooled, 4),
        "auc": round(scores.auc, 4),
        "majority": round(scores.majority, 4),
        "resplits": len(SEEDS),
    }


GOALS = (
    (4, 1.0, "mean_of_centres", 0.82),
    (4, 1.0, "auc", 0.865),
    (4, 0.1, "mean_of_centres", 0.805),
    (4, 0.05, "mean_of_centres", 0.775),
    (2, 0.1, "mean_of_centres", 0.79),
)
"""For the hospitals with shared noise: h, ε, figure, and the least that it must be."""
FIGURES = ("mean_of_centres", "pooled", "auc")


def shortfalls(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the goals that are not met, in words; empty if all are."""
    table = {
        (row["noise"], row["h"], row["epsilon"]): row for row in rows if row["data"] == HOSPITALS
    }
    alone = {budget: table["per-country", 1, budget] for budget in BUDGETS}
    goals = [
        *GOALS,
        *((h, e, name, alone[e][name]) for e in BUDGETS for h in (4, 3, 2) for name in FIGURES),
    ]
    return [
        f"{HOSPITALS}, shared h={h}, ε={e:g}, {name}: {figure} is below {goal}"
        for h, e, name, goal in goals
        if (figure := table["shared", h, e][name]) < goal
    ]


def print_table(data: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows of one data set, the majority class and, for the hospitals, other figures."""
    print(f"{data:42}{'mean of centres':>16}{'pooled':>9}{'AUC':>8}{'rounds':>8}{'rate':>8}")
    for row in rows:
        budget = "no noise" if row["epsilon"] is None else f"ε={row['epsilon']:g}, δ={DELTA:g}"
        name = f"{row['noise']}, n=4, h={row['h']}, {budget}"
        figures = f"{row['mean_of_centres']:16.3f}{row['pooled']:9.3f}{row['auc']:8.3f}"
        print(f"{name:42}{figures}{row['rounds']:8}{row['learning_rate']:8.3g}")
    print(f"{'majority class of each centre':42}{rows[0]['majority']:16.3f}")
    if data == HOSPITALS:
        print("FLamby (Ogier du Terrail et al. 2022), on its own 740 patients and splits:")
        for name, figure in PUBLISHED:
            print(f"  {name:40}{figure:16.3f}")


def measure_all(data: DataSet, pool: Pool, measured: Sequence[Row] = ROWS) -> list[dict[str, Any]]:
    """Measure and print these rows of one data set."""
    bench, rows = Bench(data), []
    for row in measured:
        plan = bench.plan(row)
        scores = measure(bench, row, plan, pool, seeds=SEEDS, trainings=TRAININGS)
        rows.append(as_json(data.name, row, plan, scores))
    print_table(data.name, rows)
    return rows


def run(folder: Path, processes: int) -> int:
    """Measure, print and write every row; return 1 if a goal is not met."""
    sets = (public_data.hospitals(folder), public_data.breast_cancer(), public_data.diabetes())
    with workers(processes) as pool:
        rows = [row for data in sets for row in measure_all(data, pool)]
        rows += measure_all(public_data.hospitals_by_country(folder), pool, BY_COUNTRY)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"rows": rows}, indent=2) + "\n", encoding="utf-8")
    missed = shortfalls(rows)
    print("\n".join(missed) if missed else "Every goal is met.")
    return int(bool(missed))


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description="Measure accuracy against privacy on three public data sets."
    )
    parser.add_argument("--data", type=Path, default=heart.DEFAULT_FOLDER)
    parser.add_argument("--processes", type=int, default=min(4, os.cpu_count() or 1))
    options = parser.parse_args()
    if not options.data.is_dir():
        print(f"Skipped: the heart-disease files are not in {options.data}. Give --data FOLDER.")
        return 0
    return run(options.data, options.processes)


if __name__ == "__main__":
    sys.exit(main())
