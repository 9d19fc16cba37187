"""Measure the cost of a clipped sum of patients' gradients: `make bench-dpsgd`.

The sides are this project, torch's SGD step and the two methods of Opacus. They take turns in one
process, on one batch of invented patients. The function of a side's name says what the side does.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import nn

from client.records.cohort import Cohort
from client.tasks.assignment import Assignment
from client.tasks.losses import residuals, targets
from client.tasks.mlp import factors
from protocols.numerics.factored_rounding import Factors, squared_norms
from protocols.numerics.mechanism import Mechanism
from protocols.tasks import Family, Feature, TrainGlm, TrainMlp
from protocols.tasks.layout import vector_to_bytes
from protocols.tasks.schedule import TRAIN

RESULTS = Path(__file__).with_name("results") / "dpsgd.json"
MODELS = {"logistic": (14, 1)} | {
    "-".join(map(str, widths)): widths
    for widths in [(39, 64, 32, 1), (64, 256, 256, 1), (128, 1024, 1024, 1)]
}
"""The inputs of each layer, and the outputs of the last; the logistic model has no hidden layer."""
BATCH = 256
CLIP_NORM = 1.0
MAX_TURNS, MIN_TURNS, SECONDS = 300, 9, 20.0
"""Each side is measured once per turn, for SECONDS, but within these numbers of turns."""
WARM_UP = 2
IDLE = 0.25
"""All cores at once are measured only if less than this part of them was busy."""
STANDSTILL = 1e-12
"""A learning rate so small that the weights stay the same in every turn."""
CLIPPED_BOUND, CONTRIBUTION_BOUND = 1.5, 4.0
"""How many steps of SGD a clipped sum, and a whole contribution, may cost at most."""
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
SAME, SAME_ROUNDED = 0.01, 0.1
"""How far each sum may be from the first, relative to its norm: a ReLU whose input falls on the
other side of zero moves it by a thousandth, rounding to integers by more."""

Vector = NDArray[np.floating[Any]]
Side = Callable[[], Vector | None]
"""Does one side's work once, and returns the clipped sum if it has one to compare."""
Clock = Callable[[], float]


@dataclass(frozen=True)
class Batch:
    """One batch, encoded for torch and as a country's cohort, and a model that all sides share."""

    assignment: Assignment
    mechanism: Mechanism
    model: NDArray[np.float64]
    rows: NDArray[np.float64]
    target: NDArray[np.float64]

    @property
    def layers(self) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Weights and biases of each layer."""
        task, features = self.assignment.task, self.assignment.cohort.features
        if isinstance(task, TrainMlp):
            return task.layers(features, self.model)
        return [(self.model[None, 1:], self.model[:1])]  # a GLM's bias comes first


def batch_of(widths: Sequence[int]) -> Batch:
    """Return a batch of invented patients and a random model."""
    draw = np.random.default_rng(1)
    inputs = [Feature(name=f"x{n}", type="numeric", bounds=(-1, 1)) for n in range(widths[0])]
    features = (*inputs, Feature(name="ill", type="boolean"))
    columns = {feature.name: draw.uniform(-1, 1, BATCH) for feature in inputs}
    columns["ill"] = draw.integers(0, 2, BATCH).astype(np.float64)
    cohort = Cohort(features, tuple(map(str, range(BATCH))), columns)
    task = _task(widths)
    mechanism = next(item for item in task.schedule(features) if item.phase == TRAIN)
    model = task.initial(features)
    model = model if len(widths) > 2 else draw.normal(size=model.size)
    rows = np.column_stack([columns[feature.name] for feature in inputs])
    target = targets(task, features, columns)
    assignment = Assignment(task, cohort, np.zeros(BATCH, np.bool_))
    return Batch(assignment, mechanism, model, rows, target)


def _task(widths: Sequence[int]) -> TrainGlm | TrainMlp:
    fields: dict[str, Any] = {
        "family": Family.LOGISTIC,
        "target": "ill",
        "rounds": 1,
        "learning_rate": 1.0,
        "clip_norm": CLIP_NORM,
        "patients": BATCH,
        "patients_bound": BATCH,
        "evaluation": None,
    }
    hidden = tuple(widths[1:-1])
    return TrainMlp(hidden=hidden, **fields) if hidden else TrainGlm(kind="train/glm", **fields)


class Torch:
    """The same network in torch, in the precision given, with its batch ready."""

    def __init__(self, batch: Batch, precision: torch.dtype) -> None:
        linear = [
            nn.Linear(weights.shape[1], weights.shape[0]).to(precision)
            for weights, _ in batch.layers
        ]
        for layer, (weights, biases) in zip(linear, batch.layers, strict=True):
            layer.weight.data = torch.tensor(weights, dtype=precision)
            layer.bias.data = torch.tensor(biases, dtype=precision)
        parts = [part for layer in linear for part in (layer, nn.ReLU())]
        self.net = nn.Sequential(*parts[:-1])
        self.rows = torch.tensor(batch.rows, dtype=precision)
        self.target = torch.tensor(batch.target, dtype=precision)

    @property
    def optimiser(self) -> torch.optim.SGD:
        """Plain gradient descent, without momentum."""
        return torch.optim.SGD(self.net.parameters(), lr=STANDSTILL)

    def gradient(self) -> Vector:
        """Return the gradients of all parameters as one vector, layer by layer."""
        gradients = [p.grad.reshape(-1) for p in self.net.parameters() if p.grad is not None]
        return torch.cat(gradients).numpy()


def sgd(batch: Batch, precision: torch.dtype) -> Side:
    """Drop the former gradients; then forward pass, mean loss, backward pass, step."""
    torched = Torch(batch, precision)
    optimiser, loss = torched.optimiser, nn.BCEWithLogitsLoss()

    def step() -> None:
        optimiser.zero_grad()
        loss(torched.net(torched.rows), torched.target).backward()
        optimiser.step()

    return step


def opacus_hooks(batch: Batch) -> Side:
    """Compute each patient's gradient by hooks, clip and sum them without noise, and a step."""
    torched = Torch(batch, torch.float32)
    net = GradSampleModule(torched.net, loss_reduction="sum")
    optimiser = DPOptimizer(torched.optimiser, **_noiseless())
    loss = nn.BCEWithLogitsLoss(reduction="sum")

    def step() -> Vector:
        optimiser.zero_grad()
        loss(net(torched.rows), torched.target).backward()
        optimiser.step()
        return torched.gradient()

    return step


def opacus_ghost(batch: Batch) -> Side:
    """Compute norms by ghost clipping, a second backward pass for the clipped sum, and a step."""
    torched = Torch(batch, torch.float32)
    net = GradSampleModuleFastGradientClipping(
        torched.net, loss_reduction="sum", max_grad_norm=CLIP_NORM
    )
    optimiser = DPOptimizerFastGradientClipping(torched.optimiser, **_noiseless())
    target = torched.target[:, 0]  # Opacus needs one loss per patient, (patients,)
    plain = nn.BCEWithLogitsLoss(reduction="sum")
    loss = DPLossFastGradientClipping(net, optimiser, plain, loss_reduction="sum")

    def step() -> Vector:
        optimiser.zero_grad()
        loss(net(torched.rows)[:, 0], target).backward()
        optimiser.step()
        return torched.gradient()

    return step


def _noiseless() -> dict[str, Any]:
    return {
        "noise_multiplier": 0.0,
        "max_grad_norm": CLIP_NORM,
        "expected_batch_size": BATCH,
        "loss_reduction": "sum",
    }


def ours_plain(batch: Batch) -> Side:
    """Compute the clipped sum in single precision: norms in closed form, one backward pass.

    Like both methods of Opacus, it adds in the library's order and makes no integers.
    """
    rows = batch.rows.astype(np.float32)
    layers = [(w.astype(np.float32), b.astype(np.float32)) for w, b in batch.layers]
    return lambda: clipped_sum(plain_factors(layers, rows, batch.target))


def ours_separate(batch: Batch) -> Side:
    """Compute the clipped sum in floating point by the node's own passes, each row separately."""
    rows, layers = batch.rows, batch.layers
    return lambda: clipped_sum(factors(Family.LOGISTIC, layers, rows, batch.target))


def ours_with_contribution(batch: Batch) -> Side:
    """Compute the exact integer sum to which a node adds noise: `Assignment.lattice_sum`."""
    payload = vector_to_bytes(batch.model)

    def gradient_of_all() -> Vector:
        integers = batch.assignment.lattice_sum(batch.mechanism, payload, entropy=os.urandom)
        total = integers / batch.mechanism.scale
        return total if isinstance(batch.assignment.task, TrainMlp) else np.roll(total, -1)

    return gradient_of_all


def plain_factors(
    layers: Sequence[tuple[Vector, Vector]], rows: Vector, target: NDArray[np.float64]
) -> list[Factors]:
    """Return each layer's factors, by numpy's own products in the precision of `rows`."""
    entered: list[Any] = [rows]
    for weights, biases in layers[:-1]:
        given = entered[-1] @ weights.T
        given += biases
        entered.append(np.maximum(given, 0, out=given))
    weights, biases = layers[-1]
    outputs = np.asarray(entered[-1] @ weights.T + biases, dtype=np.float64)
    returned: list[Any] = [residuals(Family.LOGISTIC, outputs, target).astype(rows.dtype)]
    for (inner, _), active in zip(layers[:0:-1], entered[:0:-1], strict=True):
        back = returned[-1] @ inner
        back *= active > 0
        returned.append(back)
    return [Factors(a, d) for a, d in zip(entered, reversed(returned), strict=True)]


def clipped_sum(layers: Sequence[Factors]) -> Vector:
    """Return the sum over patients of their gradients, clipped to the clip norm, layer by layer."""
    norms = np.sqrt(squared_norms(layers))
    factor = CLIP_NORM / np.maximum(norms, CLIP_NORM)
    parts = []
    for layer in layers:
        returned = layer.returned * factor.astype(layer.returned.dtype)[:, None]
        parts += [(returned.T @ layer.entered).reshape(-1), returned.sum(axis=0)]
    return np.concatenate(parts)


SIDES: Mapping[str, Callable[[Batch], Side]] = {
    "sgd_us": lambda batch: sgd(batch, torch.float32),
    "sgd_float64_us": lambda batch: sgd(batch, torch.float64),
    "ours_us": ours_plain,
    "ours_separate_us": ours_separate,
    "ours_with_contribution_us": ours_with_contribution,
    "opacus_hooks_us": opacus_hooks,
    "opacus_ghost_us": opacus_ghost,
}


def measure(widths: Sequence[int], clock: Clock) -> dict[str, float]:
    """Return the median microseconds of each side; the sides take turns."""
    batch = batch_of(widths)
    sides = {name: prepare(batch) for name, prepare in SIDES.items()}
    require_agreement({name: side() for name, side in sides.items()})
    for side in [*sides.values()] * WARM_UP:
        side()
    return {name: statistics.median(took) for name, took in in_turns(sides, clock).items()}


def require_agreement(sums: Mapping[str, Vector | None]) -> None:
    """Raise RuntimeError if two sides compute different sums, apart from rounding."""
    vectors = {name: vector for name, vector in sums.items() if vector is not None}
    first = next(iter(vectors.values()))
    for name, vector in vectors.items():
        distance = np.linalg.norm(vector - first) / np.linalg.norm(first)
        allowed = SAME_ROUNDED if name == "ours_with_contribution_us" else SAME
        if not distance <= allowed:
            raise RuntimeError(f"{name} computes another sum: the distance is {distance:.2g}")


def in_turns(sides: Mapping[str, Side], clock: Clock) -> dict[str, list[float]]:
    """Return the microseconds of each side in each turn; every second turn is in reverse order.

    Each side first does its work once unmeasured, because another side may have filled the caches
    with a gigabyte of gradients.
    """
    took: dict[str, list[float]] = {name: [] for name in sides}
    end, order = time.perf_counter() + SECONDS, list(sides)
    for turn in range(MAX_TURNS):
        if turn >= MIN_TURNS and time.perf_counter() > end:
            break
        for name in order:
            sides[name]()
            start = clock()
            sides[name]()
            took[name].append(1e6 * (clock() - start))
        order.reverse()
    return took


def row_of(model: str, took: Mapping[str, float]) -> dict[str, Any]:
    """Return one row of the results: microseconds, and the same as numbers of SGD steps."""
    step, double = took["sgd_us"], took["sgd_float64_us"]
    return {
        "model": model,
        "batch": BATCH,
        **{name: round(microseconds, 1) for name, microseconds in took.items()},
        "clipped_sum_in_steps": round(took["ours_us"] / step, 2),
        "separate_sum_in_steps": round(took["ours_separate_us"] / step, 2),
        "separate_sum_in_float64_steps": round(took["ours_separate_us"] / double, 2),
        "contribution_in_steps": round(took["ours_with_contribution_us"] / step, 2),
    }


def shortfalls(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the bounds that the figures miss, in words; empty if they miss none."""
    bounds = {
        "clipped_sum_in_steps": CLIPPED_BOUND,
        "separate_sum_in_float64_steps": CLIPPED_BOUND,
        "contribution_in_steps": CONTRIBUTION_BOUND,
    }
    return [
        f"{row['model']}: {what} is {row[what]}, over {bound}"
        for row in rows
        for what, bound in bounds.items()
        if not row[what] <= bound
    ]


def measured_with(threads: int) -> list[dict[str, Any]]:
    """Measure in a new process, in which each library has this many threads; return the rows."""
    arguments = [sys.executable, "-m", "bench.dpsgd", "--threads", str(threads)]
    limits = dict.fromkeys(THREAD_VARIABLES, str(threads))
    done = subprocess.run(arguments, env=os.environ | limits, stdout=subprocess.PIPE, check=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def report(rows: Sequence[Mapping[str, Any]], threads: int) -> None:
    """Print the figures."""
    names = [name.removesuffix("_us") for name in SIDES]
    print(f"\n{threads} thread(s), batch of {BATCH}; microseconds, and below them steps of SGD")
    print(" " * 16 + "".join(f"{name.replace('_', ' '):>23}" for name in names))
    for row in rows:
        print(f"{row['model']:16}" + "".join(f"{row[name + '_us']:23,.0f}" for name in names))
        steps = [row[f"{name}_us"] / row["sgd_us"] for name in names]
        print(" " * 16 + "".join(f"{step:23.2f}" for step in steps))


def main() -> int:
    """Run from the command line; return 1 if a bound is missed with one thread."""
    parser = argparse.ArgumentParser(description="A clipped sum beside a plain step of SGD.")
    parser.add_argument("--threads", type=int, help="measure in this process, print JSON")
    parser.add_argument("--print-only", action="store_true", help="write nothing")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        # One thread's CPU time is its time on an idle machine. Wall-clock time would depend on
        # other work of the machine, and so would whether a bound is met.
        clock = time.process_time if options.threads == 1 else time.perf_counter
        print(json.dumps([row_of(name, measure(widths, clock)) for name, widths in MODELS.items()]))
        return 0
    cores, busy = os.cpu_count() or 1, os.getloadavg()[0]
    written: dict[str, Any] = {"cores": cores, "load_before": round(busy, 1)}
    written |= {"threads": 1, "rows": measured_with(1)}
    report(written["rows"], 1)
    if cores > 1 and busy < IDLE * cores:
        written |= {"all_cores_rows": measured_with(cores)}
        report(written["all_cores_rows"], cores)
    else:
        print(f"{cores} threads at once were left out: on a busy machine they mean nothing.")
    if not options.print_only:
        RESULTS.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    missed = shortfalls(written["rows"])
    print("\n".join(missed) if missed else "Every bound is met.")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
