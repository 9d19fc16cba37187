"""Trainers: compute outputs and integer sums from patients and a model, per training task kind.

A trainer gets one batch of the cohort at a time, small enough for bounded memory. It returns the
sum of the batch's integers, with the norm of each patient bounded exactly.
"""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from client.records.cohort import Cohort
from client.tasks.glm import gradients
from client.tasks.losses import residuals, targets
from client.tasks.mlp import factors
from client.tasks.module_registry import Modules
from client.tasks.torch_module import TorchModule
from protocols.errors import ReasonCode, Refusal
from protocols.numerics.factored_rounding import factored_sum
from protocols.numerics.mechanism import Mechanism
from protocols.numerics.rounding import Entropy, round_contributions
from protocols.tasks import Feature, TrainGlm, Training, TrainMlp, TrainModule
from protocols.tasks.features import FloatArray
from protocols.tasks.tensors import split

VALUES_AT_ONCE = 4_000_000
"""Patients are summed in batches, so that a wide gradient needs 32 MB at a time."""
FACTORS_AT_ONCE = 2_000_000
"""The same limit for factors, of which several copies exist at the same time."""
KEPT_BYTES = 2**25
"""The largest block that raises glibc's dynamic threshold (mallopt(3), M_MMAP_THRESHOLD)."""


class Trainer(Protocol):
    """Computes outputs and gradient sums for one training task."""

    patients_at_once: int
    """The largest number of patients that `contribute` may get at once."""

    def outputs(self, cohort: Cohort, model: FloatArray) -> FloatArray:
        """Return the outputs of the model before the link function, (patients, classes)."""

    def contribute(
        self, cohort: Cohort, model: FloatArray, mechanism: Mechanism, entropy: Entropy
    ) -> NDArray[np.int64]:
        """Return Σ over patients of their rounded gradients, int64 (dimension,)."""


def trainer_for(task: Training, features: Sequence[Feature], modules: Modules) -> Trainer:
    """Return the trainer of a task. Raises Refusal if its module is not installed on this node."""
    if isinstance(task, TrainGlm):
        return GlmTrainer(task, features)
    if isinstance(task, TrainMlp):
        return MlpTrainer(task, features)
    if isinstance(task, TrainModule):
        return ModuleTrainer(task, features, _built(task, features, modules))
    raise _not_installed(task.kind, "a node trains only installed task kinds")


def _built(task: TrainModule, features: Sequence[Feature], modules: Modules) -> TorchModule:
    name = f"module {task.module}, version {task.version},"
    module = modules.get((task.module, task.version))
    if module is None:
        raise _not_installed(name, "the operator of this node has not registered it")
    try:
        return TorchModule(task, features, module)
    except ValueError as error:
        raise _not_installed(name, str(error)) from error


def _not_installed(what: str, why: str) -> Refusal:
    return Refusal(
        ReasonCode.TASK_UNKNOWN,
        f"The {what} is not installed on this node in the form that the study needs",
        why=why,
        fix="install it and list it under `modules` in node.yaml, or ask for another study",
    )


class GlmTrainer:
    """Full gradients of a generalised linear model."""

    def __init__(self, task: TrainGlm, features: Sequence[Feature]) -> None:
        self._task = task
        self.patients_at_once = max(1, VALUES_AT_ONCE // task.dimension(features))

    def outputs(self, cohort: Cohort, model: FloatArray) -> FloatArray:
        """Return the linear predictor, (patients, classes)."""
        return self._task.outputs(cohort.features, model, _rows(self._task, cohort))

    def contribute(
        self, cohort: Cohort, model: FloatArray, mechanism: Mechanism, entropy: Entropy
    ) -> NDArray[np.int64]:
        """Return Σ over patients of their rounded gradients, int64 (dimension,)."""
        per_patient = patient_gradients(self._task, cohort, model)
        return round_contributions(per_patient, mechanism, entropy=entropy)


class MlpTrainer:
    """Gradient factors of a multilayer perceptron, layer by layer."""

    def __init__(self, task: TrainMlp, features: Sequence[Feature]) -> None:
        self._task, self._tensors = task, task.tensors(features)
        values = 2 * sum(task.widths(features))
        _keep_freed_memory()
        self.patients_at_once = max(1, FACTORS_AT_ONCE // values)

    def outputs(self, cohort: Cohort, model: FloatArray) -> FloatArray:
        """Return the outputs of the last layer, (patients, classes)."""
        return self._task.outputs(cohort.features, model, _rows(self._task, cohort))

    def contribute(
        self, cohort: Cohort, model: FloatArray, mechanism: Mechanism, entropy: Entropy
    ) -> NDArray[np.int64]:
        """Return Σ over patients of their rounded gradients, int64 (dimension,)."""
        task, features = self._task, cohort.features
        target = targets(task, features, cohort.columns)
        parts = list(split(model, self._tensors).values())
        layers = list(zip(parts[::2], parts[1::2], strict=True))
        per_layer = factors(task.family, layers, _rows(task, cohort), target)
        return factored_sum(per_layer, mechanism, entropy=entropy)


class ModuleTrainer:
    """Full gradients of a registered torch module."""

    def __init__(self, task: TrainModule, features: Sequence[Feature], module: TorchModule) -> None:
        self._task, self._module = task, module
        self.patients_at_once = max(1, VALUES_AT_ONCE // task.dimension(features))

    def outputs(self, cohort: Cohort, model: FloatArray) -> FloatArray:
        """Return the outputs of the module, (patients, classes)."""
        return self._module.outputs(model, _rows(self._task, cohort))

    def contribute(
        self, cohort: Cohort, model: FloatArray, mechanism: Mechanism, entropy: Entropy
    ) -> NDArray[np.int64]:
        """Return Σ over patients of their rounded gradients, int64 (dimension,)."""
        target = targets(self._task, cohort.features, cohort.columns)
        residual = partial(residuals, self._task.family)
        rows = _rows(self._task, cohort)
        per_patient = self._module.gradients(model, rows, target, residual)
        return round_contributions(per_patient, mechanism, entropy=entropy)


def _keep_freed_memory() -> None:
    """Make glibc keep up to 64 MB of freed memory instead of returning it to the system.

    glibc keeps twice the size of the largest block that was ever freed, even if the block was never
    written to. Without this, a third of the time of a sum was spent on mapping pages again.
    """
    np.empty(KEPT_BYTES - 2**16, np.uint8)


def patient_gradients(task: TrainGlm, cohort: Cohort, model: FloatArray) -> FloatArray:
    """Return one unclipped gradient per patient, float64 (patients, dimension)."""
    target = targets(task, cohort.features, cohort.columns)
    return gradients(task.family, model, _rows(task, cohort), target)


def _rows(task: Training, cohort: Cohort) -> FloatArray:
    return task.rows(cohort.features, cohort.columns)
