"""Removing one patient changes no other patient's contribution, whatever the model.

The models here make sums cancel, so that the result shows the order of the additions.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import nn

from client.records.cohort import Cohort
from client.tasks import trainers
from client.tasks.assignment import Assignment
from client.tasks.module_registry import Registered
from client.tasks.trainers import Trainer, trainer_for
from protocols.numerics.mechanism import Mechanism
from protocols.tasks import Feature, Training
from protocols.tasks.features import FloatArray
from protocols.tasks.layout import vector_to_bytes
from protocols.tasks.schedule import EVALUATE, TRAIN
from tests.support.patients import FEATURES, glm, mlp, module, records

MEASURED = 12
WIDE = (
    *(Feature(name=f"x{n}", type="numeric", bounds=(-9, 9)) for n in range(MEASURED)),
    Feature(name="sex", type="categorical", levels=("female", "male")),
    Feature(name="ill", type="boolean"),
)
LINEAR = Registered("linear", 1, lambda _, inputs, outputs: nn.Linear(inputs, outputs))
WIDTH = MEASURED + 2


def people(patients: int, without: int | None = None) -> Cohort:
    draw = np.random.default_rng(0)
    columns = {f"x{n}": draw.normal(size=patients) for n in range(MEASURED)}
    columns |= {name: draw.integers(0, 2, patients).astype(float) for name in ("sex", "ill")}
    if without is not None:
        columns = {name: np.delete(column, without) for name, column in columns.items()}
    return Cohort(WIDE, tuple(str(n) for n in range(len(columns["sex"]))), columns)


def cancelling(bias: int, sexes: slice, size: int) -> FloatArray:
    """Return weights whose bias either sex cancels; what is added in between is lost."""
    model = np.random.default_rng(5).normal(size=size) * 40
    model[bias], model[sexes] = 1e17, -1e17
    return model


def tasks() -> list[tuple[str, Training, FloatArray]]:
    plain: dict[str, Any] = {"inputs": (), "evaluation": None}
    linear = [{"name": "weight", "shape": (1, WIDTH)}, {"name": "bias", "shape": (1,)}]
    perceptron = mlp(hidden=(3,), **plain)
    layers = cancelling(3 * WIDTH, slice(0, 0), perceptron.dimension(WIDE))
    layers[: 3 * WIDTH].reshape(3, WIDTH)[:, -2:] = -1e17
    layers[3 * WIDTH : 3 * WIDTH + 3] = 1e17
    return [
        ("glm", glm(**plain), cancelling(0, slice(-2, None), WIDTH + 1)),
        ("mlp", perceptron, layers),
        (
            "module",
            module(module="linear", parts=linear, parameters={}, **plain),
            cancelling(-1, slice(-3, -1), WIDTH + 1),
        ),
    ]


@pytest.fixture(params=tasks(), ids=lambda given: given[0])
def case(request: pytest.FixtureRequest) -> tuple[Trainer, Training, FloatArray]:
    _, task, model = request.param
    return trainer_for(task, WIDE, {("linear", 1): LINEAR}), task, model


@pytest.mark.parametrize("patients", [37, 51, 130])
def test_outputs_of_the_other_patients_stay_the_same_to_the_last_bit(
    case: tuple[Trainer, Training, FloatArray], patients: int
) -> None:
    trainer, _, model = case
    all_outputs = trainer.outputs(people(patients), model)
    assert np.unique(all_outputs).size > 1
    for left_out in (0, patients // 2, patients - 1):
        rest = trainer.outputs(people(patients, left_out), model)
        assert np.array_equal(np.delete(all_outputs, left_out, axis=0), rest)


def halves(size: int) -> bytes:
    """Return the same random word at each draw: one half, for words of 64 and 32 bits."""
    return (b"\x00\x00\x00\x80" * (size // 4 + 1))[:size]


@pytest.mark.parametrize("patients", [37, 51, 130])
def test_one_patient_changes_a_sum_by_the_sensitivity_at_most(
    case: tuple[Trainer, Training, FloatArray], patients: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, task, model = case
    monkeypatch.setattr(
        "protocols.numerics.keystream.Keystream.fractions", lambda _, size: np.full(size, 0.5)
    )
    mechanism = next(m for m in task.schedule(WIDE) if m.phase == TRAIN)

    def total(without: int | None) -> FloatArray:
        contribution = trainer.contribute(people(patients, without), model, mechanism, halves)
        return contribution.astype(float)

    total_of_all = total(None)
    for without in (0, patients // 2, patients - 1):
        assert np.linalg.norm(total_of_all - total(without)) <= mechanism.sensitivity


def test_a_wide_network_is_evaluated_in_batches_as_small_as_in_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch_sizes: list[int] = []
    outputs = trainers.MlpTrainer.outputs

    def counting(self: trainers.MlpTrainer, cohort: Cohort, model: FloatArray) -> FloatArray:
        batch_sizes.append(cohort.patients)
        return outputs(self, cohort, model)

    monkeypatch.setattr(trainers, "FACTORS_AT_ONCE", 200)
    monkeypatch.setattr(trainers.MlpTrainer, "outputs", counting)
    task = mlp()
    assignment = Assignment.prepare(task, FEATURES, records(60), split_secret=bytes(32), split="s")
    mechanism: Mechanism = next(m for m in task.schedule(FEATURES) if m.phase == EVALUATE)
    model = vector_to_bytes(task.initial(FEATURES))
    entropy: Callable[[int], bytes] = bytes
    assignment.lattice_sum(mechanism, model, entropy=entropy)
    assert 0 < max(batch_sizes) <= assignment.trainer.patients_at_once < 60
