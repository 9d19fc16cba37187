"""Each kind of training task has its trainer, which sums patients in bounded batches."""

from dataclasses import replace

import numpy as np
import pytest

from client.tasks.module_registry import BUILT_IN, registered
from client.tasks.trainers import (
    FACTORS_AT_ONCE,
    VALUES_AT_ONCE,
    GlmTrainer,
    MlpTrainer,
    patient_gradients,
    trainer_for,
)
from protocols.errors import ReasonCode, Refusal
from protocols.tasks import Training
from tests.support.patients import FEATURES, cohort, entropy, glm, mlp, module, release

PEOPLE = cohort(40)


def model_of(task: Training) -> np.ndarray:
    return np.linspace(-0.5, 0.5, task.dimension(FEATURES))


@pytest.mark.parametrize(("task", "kind"), [(glm(), GlmTrainer), (mlp(), MlpTrainer)])
def test_a_task_gets_the_trainer_of_its_kind(task: Training, kind: type) -> None:
    trainer = trainer_for(task, FEATURES, registered())
    assert isinstance(trainer, kind)
    assert trainer.outputs(PEOPLE, model_of(task)).shape == (40, 1)


def test_batches_are_small_enough_for_bounded_memory() -> None:
    task = glm()
    trainer = trainer_for(task, FEATURES, {})
    assert 1 <= trainer.patients_at_once <= VALUES_AT_ONCE // task.dimension(FEATURES)
    wide = trainer_for(mlp(hidden=(1_000,)), FEATURES, {})
    assert 1 <= wide.patients_at_once <= FACTORS_AT_ONCE // 1_000


@pytest.mark.parametrize("task", [glm(), mlp()])
def test_no_patients_contribute_nothing(task: Training) -> None:
    trainer = trainer_for(task, FEATURES, {})
    nobody = PEOPLE.where(np.zeros(PEOPLE.patients, dtype=bool))
    total = trainer.contribute(nobody, model_of(task), release(task, "train"), entropy())
    assert total.dtype == np.int64
    assert not total.any()


def test_the_gradient_of_a_patient_does_not_depend_on_other_patients() -> None:
    task = glm()
    together = patient_gradients(task, PEOPLE, model_of(task))
    alone = patient_gradients(task, PEOPLE.between(7, 8), model_of(task))
    assert (together[7] == alone[0]).all()


@pytest.mark.parametrize(
    "registry",
    [
        {},
        {("series-conv", 2): replace(BUILT_IN[0], version=2)},
        {("other", 1): replace(BUILT_IN[0], name="other")},
    ],
)
def test_a_module_that_is_not_registered_is_refused(
    registry: dict[tuple[str, int], object],
) -> None:
    with pytest.raises(Refusal) as refused:
        trainer_for(module(), FEATURES, registry)  # type: ignore[arg-type]
    assert refused.value.code is ReasonCode.TASK_UNKNOWN


def test_a_module_that_differs_from_the_study_is_refused() -> None:
    other = module(parameters={"channels": 3, "kernel": 3})
    with pytest.raises(Refusal) as refused:
        trainer_for(other, FEATURES, registered())
    assert refused.value.code is ReasonCode.TASK_UNKNOWN
