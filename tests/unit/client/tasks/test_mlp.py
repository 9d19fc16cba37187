"""`train/mlp`: closed-form norms against a plain loop and Opacus; the whole path to integers."""

import math
import os
import tracemalloc
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.grad_sample import GradSampleModule
from torch import nn

from client.tasks.losses import targets
from client.tasks.mlp import factors
from client.tasks.trainers import MlpTrainer
from protocols.numerics.factored_rounding import Factors, squared_norms
from protocols.tasks import Family, Feature, FeatureKind, TrainMlp
from protocols.tasks.features import FloatArray
from protocols.tasks.schedule import TRAIN
from protocols.tasks.tensors import split
from tests.support.patients import FEATURES, cohort, mlp, release

FAMILIES = st.sampled_from(Family)
NEAR = 1e-5
"""Factors are computed on grids with steps of 2^-25 of what is largest, one layer upon another: as
near as single precision comes."""
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


def plain_loop(task: TrainMlp, model: FloatArray, people: Any) -> FloatArray:
    net, found = network(task, model), []
    for row, label in zip(*seen(task, people), strict=True):
        net.zero_grad()
        loss_of(task.family, net(row[None]), label[None]).backward()
        found.append(torch.cat([p.grad.ravel() for p in net.parameters()]).numpy())
    return np.array(found)


@pytest.mark.filterwarnings("ignore:Full backward hook")
def by_opacus(task: TrainMlp, model: FloatArray, people: Any) -> FloatArray:
    net = GradSampleModule(network(task, model), loss_reduction="sum")
    rows, target = seen(task, people)
    loss_of(task.family, net(rows.requires_grad_()), target).backward()
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


@settings(deadline=None, max_examples=25)
@given(FAMILIES, HIDDEN, st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_norms_agree_with_a_plain_loop_and_with_opacus(
    family: Family, hidden: list[int], seed: int, patients: int
) -> None:
    task, people = mlp(family, hidden=tuple(hidden), seed=seed), cohort(patients, seed % 1000)
    model = 2 * task.initial(FEATURES) + 0.01
    loop = plain_loop(task, model, people)
    norms = np.sqrt(squared_norms(ours(task, model, people)))
    assert norms == pytest.approx(np.linalg.norm(loop, axis=1), rel=NEAR, abs=NEAR)
    opacus = by_opacus(task, model, people)
    assert opacus == pytest.approx(loop, abs=1e-6)
    assert norms == pytest.approx(np.linalg.norm(opacus, axis=1), rel=NEAR, abs=NEAR)


@pytest.mark.parametrize("family", Family)
def test_factors_multiply_to_the_gradients_of_a_plain_loop(family: Family) -> None:
    task, people = mlp(family), cohort(12)
    model = task.initial(FEATURES) + 0.1
    assert full(ours(task, model, people)) == pytest.approx(
        plain_loop(task, model, people), abs=NEAR
    )


@pytest.mark.parametrize("family", Family)
def test_outputs_are_torch_s(family: Family) -> None:
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
    found = MlpTrainer(task, FEATURES).contribute(people, model, mechanism, os.urandom)
    # rounding moves a sum by about half a unit times the longer factor, for each patient at random
    assert found / mechanism.scale == pytest.approx(clipped, abs=0.25)


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
    total = trainer.contribute(part, model, mechanism, os.urandom)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total.any()
    assert part.patients < 1000, "the cohort is taken in parts"
    whole_gradients = 8 * part.patients * mechanism.dimension
    assert peak < 120e6 < whole_gradients / 10


@pytest.mark.parametrize("size", [1e60, 1e150, 1e300, math.ldexp(1, 1023)])
def test_a_model_made_to_overflow_breaks_no_bound(size: float) -> None:
    task, people = mlp(), cohort(50)
    mechanism = release(task, TRAIN)
    model = np.full(task.dimension(FEATURES), size)
    with np.errstate(all="ignore"):
        total = MlpTrainer(task, FEATURES).contribute(people, model, mechanism, os.urandom)
    assert np.linalg.norm(total.astype(float)) <= 50 * mechanism.sensitivity
