"""`train/mlp`: closed-form norms against a plain loop and Opacus; the whole path to integers.

The exact gradients are those of torch in double precision. `tests.support.rounding_error` derives
how much ours may differ, for each model and patient.
"""

import math
import tracemalloc
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opacus.grad_sample import GradSampleModule
from torch import nn

from client.tasks.losses import targets
from client.tasks.mlp import factors
from client.tasks.trainers import MlpTrainer
from protocols.numerics.factored_rounding import Factors, squared_norms
from protocols.numerics.rowwise_products import grid_bits
from protocols.tasks import Family, Feature, FeatureKind, TrainMlp
from protocols.tasks.features import FloatArray
from protocols.tasks.schedule import TRAIN
from protocols.tasks.tensors import split
from tests.support.narrowing import present
from tests.support.patients import FEATURES, cohort, entropy, mlp, release
from tests.support.rounding_error import gradient_error

FAMILIES = st.sampled_from(Family)
HIDDEN = st.lists(st.integers(1, 12), min_size=1, max_size=4)


def network(task: TrainMlp, model: FloatArray) -> nn.Sequential:
    """Return the same network in torch, by the names under which it is released."""
    widths = task.widths(FEATURES)
    layers: list[nn.Module] = []
    for entering, leaving in pairwise(widths):
        layers += [nn.Linear(entering, leaving), nn.ReLU()]
    net = nn.Sequential(*layers[:-1]).double()
    parts = split(model, task.tensors(FEATURES))
    for number in range(len(widths) - 1):
        linear = net[2 * number]
        linear.weight.data = torch.from_numpy(parts[f"layer{number}.weight"].copy())
        linear.bias.data = torch.from_numpy(parts[f"layer{number}.bias"].copy())
    return net


def loss_of(family: Family, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if family is Family.LINEAR:
        return ((outputs - target) ** 2).sum() / 2
    if family is Family.MULTINOMIAL:
        return -(torch.log_softmax(outputs, 1) * target).sum()
    return nn.functional.binary_cross_entropy_with_logits(outputs, target, reduction="sum")


def seen(task: TrainMlp, people: Any) -> tuple[torch.Tensor, torch.Tensor]:
    rows, target = task.rows(FEATURES, people.columns), targets(task, FEATURES, people.columns)
    return torch.from_numpy(rows.copy()), torch.from_numpy(target.copy())


def plain_loop(
    task: TrainMlp, model: FloatArray, people: Any, precision: torch.dtype = torch.float64
) -> FloatArray:
    net, gradients = network(task, model).to(precision), []
    rows, target = (values.to(precision) for values in seen(task, people))
    for row, label in zip(rows, target, strict=True):
        net.zero_grad()
        torch.autograd.backward(loss_of(task.family, net(row[None]), label[None]))
        gradients.append(torch.cat([present(p.grad).ravel() for p in net.parameters()]).numpy())
    return np.array(gradients)


@pytest.mark.filterwarnings("ignore:Full backward hook")
def by_opacus(task: TrainMlp, model: FloatArray, people: Any) -> FloatArray:
    net = GradSampleModule(network(task, model), loss_reduction="sum")
    rows, target = seen(task, people)
    torch.autograd.backward(loss_of(task.family, net(rows.requires_grad_()), target))
    samples = [p.grad_sample.reshape(len(rows), -1) for p in net.parameters()]
    return torch.cat(samples, dim=1).numpy()


def ours(task: TrainMlp, model: FloatArray, people: Any) -> list[Factors]:
    rows, target = task.rows(FEATURES, people.columns), targets(task, FEATURES, people.columns)
    return factors(task.family, task.layers(FEATURES, model), rows, target)


def full(layers: list[Factors]) -> FloatArray:
    parts = []
    for layer in layers:
        outer = layer.returned[:, :, None] * layer.entered[:, None, :]
        parts += [outer.reshape(len(outer), -1), layer.returned]
    return np.concatenate(parts, axis=1)


def bound(task: TrainMlp, model: FloatArray, found: list[Factors]) -> FloatArray:
    return gradient_error(task.family, task.layers(FEATURES, model), found)


def sample(family: Family, hidden: list[int], seed: int, patients: int) -> Any:
    task, people = mlp(family, hidden=tuple(hidden), seed=seed), cohort(patients, seed % 1000)
    return task, 2 * task.initial(FEATURES) + 0.01, people


@settings(deadline=None, max_examples=25)
@given(FAMILIES, HIDDEN, st.integers(0, 2**32 - 1), st.integers(1, 9))
# Outputs from sums of size 27 leave a residual of 0.04: the norm's relative error is 3.1e-5.
@example(Family.LINEAR, [3, 5, 7, 4], 12060, 1)
@example(Family.LINEAR, [2, 6, 6, 5], 6, 7)
def test_norms_agree_with_a_plain_loop_and_with_opacus(
    family: Family, hidden: list[int], seed: int, patients: int
) -> None:
    task, model, people = sample(family, hidden, seed, patients)
    loop, opacus = plain_loop(task, model, people), by_opacus(task, model, people)
    gradients = ours(task, model, people)
    norms, near = (
        np.sqrt(squared_norms(gradients)),
        np.linalg.norm(bound(task, model, gradients), axis=1),
    )
    assert opacus == pytest.approx(loop, abs=1e-6)
    assert (np.abs(norms - np.linalg.norm(loop, axis=1)) <= near).all()
    assert (np.abs(norms - np.linalg.norm(opacus, axis=1)) <= near).all()


def furthest(family: Family, hidden: list[int], seed: int, patients: int) -> float:
    """Return the largest error of an entry of a gradient, as a share of its bound."""
    task, model, people = sample(family, hidden, seed, patients)
    gradients = ours(task, model, people)
    errors = np.abs(full(gradients) - plain_loop(task, model, people))
    return float((errors / np.maximum(bound(task, model, gradients), 1e-300)).max())


@settings(deadline=None, max_examples=25)
@given(FAMILIES, HIDDEN, st.integers(0, 2**32 - 1), st.integers(1, 9))
@example(Family.LINEAR, [3, 5, 7, 4], 12060, 1)
def test_factors_multiply_to_the_gradients_of_a_plain_loop(
    family: Family, hidden: list[int], seed: int, patients: int
) -> None:
    assert furthest(family, hidden, seed, patients) <= 1


def test_grids_two_bits_coarser_exceed_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [(family, [width], width, 9) for family in Family for width in range(1, 13)]
    assert max(furthest(*case) for case in cases) <= 1
    monkeypatch.setattr("client.tasks.mlp.grid_bits", lambda shape: grid_bits(shape) - 2)
    assert max(furthest(*case) for case in cases) > 1


def test_a_unit_that_the_grid_turns_off_is_within_the_bound() -> None:
    """The weight 1 + 2^-30 is 1 on its grid; this turns off a unit that is on by 2^-31."""
    layers = [
        (np.array([[1 + 2.0**-30]]), np.array([-1 - 2.0**-31])),
        (np.array([[1.0]]), np.array([0.0])),
    ]
    gradients = factors(Family.LINEAR, layers, np.array([[1.0]]), np.array([[-1.0]]))
    assert full(gradients).tolist() == [[0.0, 0.0, 0.0, 1.0]]
    exact = np.array([[1 + 2.0**-31, 1 + 2.0**-31, 2.0**-31, 1 + 2.0**-31]])
    assert (
        np.abs(full(gradients) - exact) <= gradient_error(Family.LINEAR, layers, gradients)
    ).all()


def test_grids_lose_no_more_than_single_precision() -> None:
    """Relative errors of 300 patients' gradients, also in deep and narrow networks."""
    task, model, people = sample(Family.LINEAR, [3, 5, 7, 4], 12060, 300)
    loop = plain_loop(task, model, people)
    sizes = np.linalg.norm(loop, axis=1)
    errors = np.linalg.norm(full(ours(task, model, people)) - loop, axis=1) / sizes
    singles = plain_loop(task, model, people, torch.float32)
    of_single = np.linalg.norm(singles - loop, axis=1) / sizes
    for share in (0.5, 0.9, 1.0):
        assert np.quantile(errors, share) <= 2 * np.quantile(of_single, share)


@pytest.mark.parametrize("family", Family)
def test_outputs_agree_with_torch(family: Family) -> None:
    task, people = mlp(family), cohort(12)
    model = task.initial(FEATURES) + 0.1
    rows, _ = seen(task, people)
    expected = network(task, model)(rows).detach().numpy()
    assert task.outputs(FEATURES, model, rows.numpy()) == pytest.approx(expected)
    assert MlpTrainer(task, FEATURES).outputs(people, model) == pytest.approx(expected)


@pytest.mark.parametrize("family", Family)
def test_a_contribution_is_the_clipped_sum_of_a_plain_loop(family: Family) -> None:
    task, people = mlp(family, clip_norm=0.5), cohort(400)
    model, mechanism = task.initial(FEATURES) + 0.1, release(mlp(family, clip_norm=0.5), TRAIN)
    loop = plain_loop(task, model, people)
    norms = np.linalg.norm(loop, axis=1, keepdims=True)
    assert (norms > 0.5).any()
    clipped = (loop * np.minimum(1, 0.5 / norms)).sum(axis=0)
    total = MlpTrainer(task, FEATURES).contribute(people, model, mechanism, entropy())
    # rounding moves a sum by about half a unit times the longer factor, for each patient at random
    assert total / mechanism.scale == pytest.approx(clipped, abs=0.25)


def test_a_million_weights_need_bounded_memory() -> None:
    inputs = tuple(Feature(name=f"x{i}", type="numeric", bounds=(-1, 1)) for i in range(128))
    features = (*inputs, Feature(name="ill", type=FeatureKind.BOOLEAN))
    task = mlp(inputs=(), hidden=(1024, 1024))
    assert task.dimension(features) == 1_182_721
    mechanism = next(m for m in task.schedule(features) if m.phase == TRAIN)
    draw = np.random.default_rng(1)
    columns = {f.name: draw.uniform(-1, 1, 1000) for f in inputs} | {
        "ill": draw.integers(0, 2, 1000).astype(float)
    }
    people = type(cohort(1))(features, tuple(map(str, range(1000))), columns)
    trainer, model = MlpTrainer(task, features), task.initial(features)
    part = people.between(0, trainer.patients_at_once)
    tracemalloc.start()
    total = trainer.contribute(part, model, mechanism, entropy())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total.any()
    assert part.patients < 1000, "the cohort is summed in batches"
    whole_gradients = 8 * part.patients * mechanism.dimension
    assert peak < 120e6 < whole_gradients / 10


@pytest.mark.parametrize("size", [1e60, 1e150, 1e300, math.ldexp(1, 1023)])
def test_a_model_that_overflows_breaks_no_bound(size: float) -> None:
    task, people = mlp(), cohort(50)
    mechanism = release(task, TRAIN)
    model = np.full(task.dimension(FEATURES), size)
    with np.errstate(all="ignore"):
        total = MlpTrainer(task, FEATURES).contribute(people, model, mechanism, entropy())
    assert np.linalg.norm(total.astype(float)) <= 50 * mechanism.sensitivity
