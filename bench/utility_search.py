"""Choose the constants of the step size rule, on invented patients.

Run as `python -m bench.utility_search`.

None of the data that `make bench-utility` measures is used. Each problem is a population with its
own number of inputs (3 to 40), patients (300 to 2,000), correlation, scale, share of yes/no inputs,
prevalence (2 to 50 %), clip norm and noise. Noise is Gaussian, at a fixed budget for the whole
training: s·√T in each of T rounds. A score is the part of what the best model reaches: for yes/no
targets the mean of the parts in AUC and in log likelihood, for numbers R², for levels the accuracy
above the most frequent level's. The chosen rule is the one with the fewest rounds of those whose
mean score over the four kinds of task is within MARGIN of the best.
"""

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from statistics import fmean

import numpy as np

from bench.utility import auc
from protocols.tasks.features import FloatArray
from protocols.tasks.step_size import LINEAR_PART, StepRule
from protocols.tasks.training import one_hot, sigmoid, softmax

LOGISTIC, LINEAR, MULTINOMIAL, PERCEPTRON = "logistic", "linear", "multinomial", "perceptron"
FAMILIES = (LOGISTIC, LINEAR, MULTINOMIAL, PERCEPTRON)
PROBLEMS = 200
TRAININGS = 2
TESTED = 3_000
MARGIN = 0.01
HIDDEN = 8
LEVELS = 4
NEWTON_STEPS = 30
GROUPS = ("little noise", "some noise", "much noise")
LITTLE_NOISE, MUCH_NOISE = 0.03, 0.2
"""Of the noise in an output after one step of rate 1 with the whole budget, in clip norms."""
Parameters = list[FloatArray]


@dataclass(frozen=True)
class Candidate:
    """A rule, whether it counts all coordinates of a model or those of a row, and its linear part.

    With `fixed`, the rate of every problem is the largest.
    """

    rule: StepRule
    every_coordinate: bool = False
    linear_part: float = LINEAR_PART
    fixed: bool = False

    def setting(self, problem: "Problem") -> tuple[int, float]:
        """Return rounds and rate for a problem."""
        width = problem.dimension if self.every_coordinate else problem.rows.shape[1]
        rounds = self.rule.rounds(problem.noise, width, self.rule.largest_rate)
        bound = self.rule.bound(problem.noise * math.sqrt(rounds), width, rounds)
        rate = self.rule.largest_rate if self.fixed else min(self.rule.largest_rate, bound)
        return rounds, rate * (self.linear_part if problem.family == LINEAR else 1.0)


TWELVE = StepRule(0.5, 2.0, 12, 12)
RULE = StepRule()
CANDIDATES: Mapping[str, Candidate] = {
    "rate 2, 12 rounds": Candidate(TWELVE, linear_part=1.0, fixed=True),
    "all coordinates, .5, 12 rounds": Candidate(TWELVE, every_coordinate=True, linear_part=1.0),
    "inputs, .5, 12 rounds": Candidate(TWELVE),
    "whole rate for linear models": Candidate(RULE, linear_part=1.0),
    **{f"output noise {o}": Candidate(replace(RULE, output_noise=o)) for o in (0.35, 0.5)},
    "the rule": Candidate(RULE),
    **{f"output noise {o}": Candidate(replace(RULE, output_noise=o)) for o in (1.0, 1.4, 2.0)},
    "output noise 1.0, rate 4": Candidate(replace(RULE, output_noise=1.0, largest_rate=4.0)),
    "output noise 1.0, whole rate": Candidate(replace(RULE, output_noise=1.0), linear_part=1.0),
    **{f"largest rate {r:g}": Candidate(replace(RULE, largest_rate=r)) for r in (1.0, 4.0)},
    "12 rounds": Candidate(replace(RULE, fewest_rounds=12, most_rounds=12)),
    "at most 24 rounds": Candidate(replace(RULE, most_rounds=24)),
    "always 48 rounds": Candidate(replace(RULE, fewest_rounds=48)),
}


@dataclass(frozen=True)
class Problem:
    """Invented patients, and the noise of one round with the whole budget in each coordinate.

    `labels` and `tested_labels` are (patients, outputs); `best` is what a score is a part of.
    """

    family: str
    rows: FloatArray
    labels: FloatArray
    tested: FloatArray
    tested_labels: FloatArray
    best: tuple[float, ...]
    clip: float
    noise: float

    @property
    def dimension(self) -> int:
        """The number of coordinates of the model."""
        outputs, width = len(self.labels.T), len(self.rows.T)
        perceptron = self.family == PERCEPTRON
        return HIDDEN * width + HIDDEN + 1 if perceptron else outputs * width

    @property
    def group(self) -> str:
        """How much noise there is."""
        size = self.noise * math.sqrt(self.rows.shape[1]) / self.clip
        return GROUPS[(size >= LITTLE_NOISE) + (size >= MUCH_NOISE)]


def problem(family: str, seed: int) -> Problem:
    """Return the problem of a kind with this number."""
    generator = np.random.default_rng((FAMILIES.index(family), seed))
    inputs = round(math.exp(generator.uniform(math.log(3), math.log(40))))
    patients = round(math.exp(generator.uniform(math.log(300), math.log(2_000))))
    everybody = _inputs(generator, patients + TESTED, inputs)
    labels, ideal = _labels(generator, family, everybody)
    tested, tested_labels = everybody[patients:], labels[patients:]
    clip = float(generator.choice([0.5, 1.0, 2.0]))
    size = math.exp(generator.uniform(math.log(0.004), math.log(1.0)))
    best = figures(family, ideal[patients:], tested_labels)
    return Problem(
        family, everybody[:patients], labels[:patients], tested, tested_labels, best, clip,
        size * clip / math.sqrt(inputs + 1),
    )  # fmt: skip


def _inputs(generator: np.random.Generator, patients: int, inputs: int) -> FloatArray:
    """Return correlated inputs of unequal scale, the first of them yes/no, and a bias."""
    shared = generator.choice([0.0, 0.3, 0.7])
    values = math.sqrt(1 - shared) * generator.standard_normal((patients, inputs))
    values += math.sqrt(shared) * generator.standard_normal((patients, 1))
    yes_or_no = int(inputs * generator.choice([0.0, 0.3, 0.6]))
    values[:, :yes_or_no] = values[:, :yes_or_no] > generator.uniform(-1, 1, yes_or_no)
    values[:, yes_or_no:] *= generator.choice([0.5, 1.0, 2.0], p=[0.2, 0.6, 0.2])
    return np.concatenate([np.ones((patients, 1)), values], axis=1)


def _labels(
    generator: np.random.Generator, family: str, rows: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return labels and the outputs of the model that made them, both (patients, outputs)."""
    weights = generator.standard_normal((LEVELS if family == MULTINOMIAL else 1, rows.shape[1]))
    weights[:, 1:-1] *= generator.random(rows.shape[1] - 2) < generator.choice([0.3, 1.0])
    outputs = rows @ weights.T
    explained = generator.uniform(0.1, 0.9)
    spread = math.sqrt(explained) if family == LINEAR else generator.uniform(0.7, 2.2)
    outputs *= spread / float(outputs.std())
    if family == PERCEPTRON:
        bend = rows @ generator.standard_normal(rows.shape[1])
        outputs += 2 * (np.abs(bend / bend.std()) - 0.8)[:, None]
    if family == MULTINOMIAL:
        chosen = (outputs + generator.gumbel(size=outputs.shape)).argmax(axis=1)
        return one_hot(chosen.astype(np.float64), LEVELS).astype(np.float64), outputs
    if family == LINEAR:
        rest = math.sqrt(1 - explained) * generator.standard_normal(outputs.shape)
        declared = generator.choice([0.5, 1.0, 2.0], p=[0.2, 0.6, 0.2])
        return declared * (outputs + rest), declared * outputs
    outputs += _shift(outputs, generator.choice([0.02, 0.05, 0.1, 0.2, 0.35, 0.5]))
    return (generator.random(outputs.shape) < sigmoid(outputs)).astype(np.float64), outputs


def _shift(outputs: FloatArray, prevalence: float) -> float:
    """Return what to add to outputs for this prevalence, by bisection."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        few = sigmoid(outputs + middle).mean() < prevalence
        low, high = (middle, high) if few else (low, middle)
    return low


def figures(family: str, outputs: FloatArray, labels: FloatArray) -> tuple[float, ...]:
    """Return the figures of a model that a score consists of; each is 0 for a useless one."""
    if family == LINEAR:
        return (float(1 - ((outputs - labels) ** 2).mean() / labels.var()),)
    if family == MULTINOMIAL:
        right = (outputs.argmax(axis=1) == labels.argmax(axis=1)).mean()
        return (float(right - labels.mean(axis=0).max()),)
    prevalence = labels.mean()
    null = -(prevalence * math.log(prevalence) + (1 - prevalence) * math.log(1 - prevalence))
    loss = float((np.logaddexp(0, outputs) - outputs * labels).mean())
    return auc(outputs[:, 0], labels[:, 0] == 1) - 0.5, null - loss


def score(task: Problem, candidate: Candidate, seed: int) -> float:
    """Return the mean part of the best model's figures that training reaches, at least -1."""
    generator = np.random.default_rng(seed)
    rounds, rate = candidate.setting(task)
    outputs = _outputs(train(task, rounds, rate, generator), task.tested)
    reached = figures(task.family, outputs, task.tested_labels)
    return fmean(max(-1.0, a / max(b, 0.02)) for a, b in zip(reached, task.best, strict=True))


def train(task: Problem, rounds: int, rate: float, generator: np.random.Generator) -> Parameters:
    """Return the mean of the last half of the iterates of noisy, clipped gradient descent."""
    model, spread = _start(task, generator), task.noise * math.sqrt(rounds)
    last: list[Parameters] = []
    for number in range(rounds):
        gradients = _gradients(task, model)
        model = [
            part - rate * (gradient + spread * generator.standard_normal(part.shape))
            for part, gradient in zip(model, gradients, strict=True)
        ]
        if number >= rounds // 2:
            last.append(model)
    return [np.mean(parts, axis=0) for parts in zip(*last, strict=True)]


def _start(task: Problem, generator: np.random.Generator) -> Parameters:
    width = task.rows.shape[1]
    if task.family != PERCEPTRON:
        return [np.zeros((task.labels.shape[1], width))]
    hidden = generator.uniform(-1, 1, (HIDDEN, width)) / math.sqrt(width)
    hidden[:, 0] = 0.0
    last = generator.uniform(-1, 1, (1, HIDDEN + 1)) / math.sqrt(HIDDEN)
    last[:, 0] = 0.0
    return [hidden, last]


def _outputs(model: Parameters, rows: FloatArray) -> FloatArray:
    """Return outputs before the link function; the first column of each layer is its bias."""
    *hidden, last = model
    for layer in hidden:
        rows = _with_bias(np.maximum(rows @ layer.T, 0.0))
    return np.asarray(rows @ last.T)


def _with_bias(rows: FloatArray) -> FloatArray:
    return np.concatenate([np.ones((len(rows), 1)), rows], axis=1)


def _gradients(task: Problem, model: Parameters) -> Parameters:
    """Return the mean of the clipped gradients, one array for each part of the model."""
    *hidden, last = model
    entering = [task.rows]
    if hidden:
        entering.append(_with_bias(np.maximum(task.rows @ hidden[0].T, 0.0)))
    errors = [_predicted(task.family, entering[-1] @ last.T) - task.labels]
    if hidden:
        errors.insert(0, errors[0] * last[:, 1:] * (entering[1][:, 1:] > 0))
    squares = [
        (error**2).sum(axis=1) * (rows**2).sum(axis=1)
        for error, rows in zip(errors, entering, strict=True)
    ]
    kept = np.minimum(1.0, task.clip / np.sqrt(np.maximum(sum(squares), 1e-18)))
    return [
        (error * kept[:, None]).T @ rows / len(rows)
        for error, rows in zip(errors, entering, strict=True)
    ]


def _predicted(family: str, outputs: FloatArray) -> FloatArray:
    if family == LINEAR:
        return outputs
    return softmax(outputs) if family == MULTINOMIAL else sigmoid(outputs)


@dataclass(frozen=True)
class Result:
    """The rounds and the scores of each candidate on one problem."""

    group: str
    rounds: Mapping[str, int]
    scores: Mapping[str, float]


def solve(family: str, seed: int) -> Result:
    """Return what every candidate reaches on one problem."""
    task = problem(family, seed)
    return Result(
        task.group,
        {name: candidate.setting(task)[0] for name, candidate in CANDIDATES.items()},
        {
            name: fmean(score(task, candidate, 1_000 * seed + i) for i in range(TRAININGS))
            for name, candidate in CANDIDATES.items()
        },
    )


def print_scores(results: Mapping[str, Sequence[Result]]) -> None:
    """Print the mean rounds and scores of each candidate: all, then by kind and noise."""
    print(f"{'':34}{'rounds':>7}{'mean':>7}" + "".join(f"{f:>24}" for f in FAMILIES))
    print(f"{'':48}" + "  little    some    much" * len(FAMILIES))
    for name in CANDIDATES:
        cells = (
            fmean(one.scores[name] for one in results[family] if one.group == group)
            for family in FAMILIES
            for group in GROUPS
        )
        line = f"{name:34}{mean_rounds(results, name):7.1f}{mean_score(results, name):7.3f}"
        print(line + "".join(f"{cell:8.3f}" for cell in cells))


def mean_score(results: Mapping[str, Sequence[Result]], name: str) -> float:
    """Return the mean over the kinds of task of a candidate's mean score."""
    return fmean(fmean(one.scores[name] for one in found) for found in results.values())


def mean_rounds(results: Mapping[str, Sequence[Result]], name: str) -> float:
    """Return the mean number of rounds of a candidate."""
    return fmean(one.rounds[name] for found in results.values() for one in found)


def chosen(results: Mapping[str, Sequence[Result]]) -> str:
    """Return the candidate with the fewest rounds among the best, and of these the best."""
    best = max(mean_score(results, name) for name in CANDIDATES)
    good = [name for name in CANDIDATES if mean_score(results, name) >= best - MARGIN]
    return min(good, key=lambda n: (round(mean_rounds(results, n)), -mean_score(results, n)))


def main() -> None:
    """Search."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--problems", type=int, default=PROBLEMS, help="of each kind of task")
    problems = parser.parse_args().problems
    with get_context("spawn").Pool(os.cpu_count() or 1) as pool:
        results = {
            family: pool.starmap(solve, [(family, seed) for seed in range(problems)])
            for family in FAMILIES
        }
    print_scores(results)
    print(f"chosen: {chosen(results)}, with the fewest rounds within {MARGIN} of the best score")


if __name__ == "__main__":
    main()
