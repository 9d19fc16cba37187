"""Measure accuracy against privacy on the four heart-disease hospitals: `make bench-utility`.

Everything runs in one process with the real contribution, rounding, noise and accounting code; only
transport and masks are left out, and they change no sum. Each resplit uses a third of every
hospital's patients for testing. Test accuracy is computed in the clear, which a benchmark may do
and a node may not, so the whole ε goes into training.
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

from bench import heart
from client.records.cohort import BoolArray, Cohort, select
from client.tasks.assignment import Assignment
from governance.budget.accounting import calibrate, epsilon
from protocols.numerics.mechanism import Mechanism
from protocols.numerics.noise import DiscreteGaussian
from protocols.tasks import Feature, TrainGlm
from protocols.tasks.features import FloatArray
from protocols.tasks.schedule import TRAIN
from server.learning.optimiser import OptimiserState, step

DELTA = 1e-4
SEEDS = range(40)
TRAININGS = 10
"""Trainings of each resplit, each with fresh noise; a resplit's figure is their mean."""
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
    *(Row("shared", honest, budget) for budget in (1.0, 0.1) for honest in (4, 3, 2)),
    *(Row("per-country", 1, budget) for budget in (1.0, 0.1)),
)


@dataclass(frozen=True)
class Scores:
    """Test figures of one resplit."""

    mean_of_centres: float
    pooled: float
    auc: float
    majority: float


@dataclass(frozen=True)
class Bench:
    """Cohorts and task that every row shares."""

    task: TrainGlm
    features: tuple[Feature, ...]
    cohorts: tuple[Cohort, ...]

    @classmethod
    def load(cls, folder: Path, task: TrainGlm) -> "Bench":
        """Return the bench of the four hospitals in a folder."""
        features = heart.features()
        used = task.names_used(features)
        cohorts = [select(records, features, used) for records in heart.hospitals(folder).values()]
        return cls(task, features, tuple(cohorts))

    def mechanism(self, row: Row) -> Mechanism:
        """Return the training release with the noise that the row's ε asks for."""
        template = next(m for m in self.task.schedule(self.features) if m.phase == TRAIN)
        if row.epsilon is None:
            return template
        return calibrate((template,), (1.0,), row.honest, row.epsilon, DELTA)[0]

    def resplit(self, row: Row, mechanism: Mechanism, seed: int, trainings: int) -> Scores:
        """Train on one random split of every hospital and test on the rest, `trainings` times."""
        tests = list(self._test_masks(seed))
        countries = [Assignment(self.task, *pair) for pair in zip(self.cohorts, tests, strict=True)]
        models = [self._trained(countries, row, mechanism) for _ in range(trainings)]
        return mean_scores([self._scores(model, tests) for model in models])

    def _trained(
        self, countries: Sequence[Assignment], row: Row, mechanism: Mechanism
    ) -> FloatArray:
        state = OptimiserState.start(self.task.initial(self.features))
        for _ in range(mechanism.rounds):
            opened = sum(_contribution(one, mechanism, state.payload, row) for one in countries)
            state = step(self.task, self.features, mechanism, state, np.asarray(opened))
        return state.model

    def _test_masks(self, seed: int) -> Iterator[BoolArray]:
        generator = np.random.default_rng(seed)
        for cohort in self.cohorts:
            mask = np.zeros(cohort.patients, dtype=np.bool_)
            mask[generator.permutation(cohort.patients)[: cohort.patients // TEST_SHARE]] = True
            yield mask

    def _scores(self, model: FloatArray, tests: Sequence[BoolArray]) -> Scores:
        tested = [cohort.where(mask) for cohort, mask in zip(self.cohorts, tests, strict=True)]
        truth = [cohort.columns[heart.TARGET] == 1 for cohort in tested]
        scores = [self._predict(model, cohort) for cohort in tested]
        right = [(s >= HALF) == t for s, t in zip(scores, truth, strict=True)]
        return Scores(
            mean_of_centres=fmean(float(one.mean()) for one in right),
            pooled=float(np.concatenate(right).mean()),
            auc=auc(np.concatenate(scores), np.concatenate(truth)),
            majority=fmean(map(self._majority, self.cohorts, tests)),
        )

    def _predict(self, model: FloatArray, cohort: Cohort) -> FloatArray:
        rows = self.task.rows(self.features, cohort.columns)
        return self.task.predict(self.features, model, rows)[:, 0]

    def _majority(self, cohort: Cohort, test: BoolArray) -> float:
        truth = cohort.columns[heart.TARGET] == 1
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


def measure(bench: Bench, row: Row, pool: Pool, *, seeds: Sequence[int], trainings: int) -> Scores:
    """Return the mean figures of one row over resplits."""
    mechanism = bench.mechanism(row)
    if row.epsilon is not None:
        spent = epsilon((mechanism,), row.honest, DELTA)
        if spent > row.epsilon:
            raise RuntimeError(f"the schedule costs ε = {spent}, more than {row.epsilon}")
    tasks = [(row, mechanism, seed, trainings) for seed in seeds]
    return mean_scores(pool.starmap(bench.resplit, tasks))


def workers(processes: int) -> Pool:
    """Return new worker processes; forked ones would share the noise generator."""
    return get_context("spawn").Pool(processes)


def as_json(row: Row, scores: Scores) -> dict[str, Any]:
    """Return one row of `utility.json`."""
    return {
        "noise": row.noise,
        "h": row.honest,
        "epsilon": row.epsilon,
        "delta": DELTA,
        "mean_of_centres": round(scores.mean_of_centres, 4),
        "pooled": round(scores.pooled, 4),
        "auc": round(scores.auc, 4),
        "resplits": len(SEEDS),
    }


def shortfalls(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the goals that are not met, in words; empty if all are."""
    table = {(row["noise"], row["h"], row["epsilon"]): row for row in rows}
    goals = [
        ("shared h=4, ε=1, mean", table["shared", 4, 1.0]["mean_of_centres"], 0.80),
        ("shared h=4, ε=1, AUC", table["shared", 4, 1.0]["auc"], 0.865),
        ("shared h=4, ε=0.1, mean", table["shared", 4, 0.1]["mean_of_centres"], 0.75),
        *(
            (f"shared h={h}, ε={e:g}, {name}", table["shared", h, e][name], alone[name])
            for (noise, _, e), alone in table.items()
            if noise == "per-country"
            for h in (4, 3, 2)
            for name in ("mean_of_centres", "pooled", "auc")
        ),
    ]
    return [f"{name}: {figure} is below {goal}" for name, figure, goal in goals if figure < goal]


def print_table(rows: Sequence[Mapping[str, Any]], majority: float) -> None:
    """Print our rows, the majority class and the published rows, side by side."""
    print(f"{'':42}{'mean of centres':>16}{'pooled':>9}{'AUC':>8}")
    for row in rows:
        budget = "no noise" if row["epsilon"] is None else f"ε={row['epsilon']:g}, δ={DELTA:g}"
        name = f"{row['noise']}, n=4, h={row['h']}, {budget}"
        print(f"{name:42}{row['mean_of_centres']:16.3f}{row['pooled']:9.3f}{row['auc']:8.3f}")
    print(f"{'majority class of each centre':42}{majority:16.3f}")
    print("FLamby (Ogier du Terrail et al. 2022), on its own 740 patients and splits:")
    for name, figure in PUBLISHED:
        print(f"  {name:40}{figure:16.3f}")


def run(folder: Path, processes: int) -> int:
    """Measure, print and write every row; return 1 if a goal is not met."""
    bench = Bench.load(folder, heart.task(heart.TRAINING))
    with workers(processes) as pool:
        scores = [measure(bench, r, pool, seeds=SEEDS, trainings=TRAININGS) for r in ROWS]
    rows = [as_json(*pair) for pair in zip(ROWS, scores, strict=True)]
    print_table(rows, scores[0].majority)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"rows": rows}, indent=2) + "\n", encoding="utf-8")
    missed = shortfalls(rows)
    print("\n".join(missed) if missed else "Every goal is met.")
    return int(bool(missed))


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description="Measure accuracy against privacy on four hospitals."
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
