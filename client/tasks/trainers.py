"""How each kind of training task turns patients and a model into outputs and integer sums.

A trainer sees a part of the cohort at a time, small enough for bounded memory; what it returns is
the sum of that part's integers, each patient's norm bounded exactly.
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
"""Patients are taken in parts, so that a wide gradient needs 32 MB at a time and not all memory."""
FACTORS_AT_ONCE = 2_000_000
"""The same for factors, of which several copies stand beside each other."""
KEPT_BYTES = 2**25
"""The largest block that glibc's allocator takes as a measure (mallopt(3), M_MMAP_THRESHOLD)."""


class Trainer(Protocol):
    """What a node makes of one training task."""

    patients_at_once: int
    """How many patients `contribute` may be given."""

    def outputs(self, cohort: Cohort, model: FloatArray) -> FloatArray:
        """Return the model's outputs before the link, (patients, classes)."""

    def contribute(
        self, cohort: Cohort, model: FloatArray, mechanism: Mechanism, entropy: Entropy
    ) -> NDArray[np.int64]:
        """Return Σ over patients of their rounded gradients, int64 (dimension,)."""


def trainer_for(task: Training, features: Sequence[Feature], modules: Modules) -> Trainer:
    """Return the trainer of a task. Raises Refusal where its module is not installed here."""
    if isinstance(task, TrainGlm):
        return GlmTrainer(task, features)
    if isinstance(task, TrainMlp):
        return MlpTrainer(task, features)
    if isinstance(task, TrainModule):
        return ModuleTrainer(task, features, _built(task, features, modules))
    raise _not_installed(task.kind, "a node trains only what is installed on it")


def _built(task: TrainModule, features: Sequence[Feature], modules: Modules) -> TorchModule:
    name = f"module {task.module}, version {task.version},"
    found = modules.get((task.module, task.version))
    if found is None:
        raise _not_installed(name, "the operator of this node has not registered it")
    try:
        return TorchModule(task, features, found)
    except ValueError as error:
        raise _not_installed(name, str(error)) from error


def _not_installed(what: str, why: str) -> Refusal:
    return Refusal(
        ReasonCode.TASK_UNKNOWN,
        f"The {what} is not installed on this node as the study needs it",
        why=why,
        fix="install and list it (`modules` in node.yaml), or ask for a study of another module",
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
        part = patient_gradients(self._task, cohort, model)
        return round_contributions(part, mechanism, entropy=entropy)


class MlpTrainer:
    """Factors of a perceptron's gradients, layer by layer."""

    def __init__(self, task: TrainMlp, features: Sequence[Feature]) -> None:
        self._task, self._tensors = task, task.tensors(features)
        values = 2 * sum(task.widths(features))
        _keep_freed_memory()
        self.patients_at_once = max(1, FACTORS_AT_ONCE // values)

    def outputs(self, cohort: Cohort, model: FloatArray) -> FloatArray:
        """Return what the last layer gives, (patients, classes)."""
        return self._task.outputs(cohort.features, model, _rows(self._task, cohort))

    def contribute(
        self, cohort: Cohort, model: FloatArray, mechanism: Mechanism, entropy: Entropy
    ) -> NDArray[np.int64]:
        """Return Σ over patients of their rounded gradients, int64 (dimension,)."""
        task, features = self._task, cohort.features
        target = targets(task, features, cohort.columns)
        parts = list(split(model, self._tensors).values())
        layers = list(zip(parts[::2], parts[1::2], strict=True))
        found = factors(task.family, layers, _rows(task, cohort), target)
        return factored_sum(found, mechanism, entropy=entropy)


class ModuleTrainer:
    """Full gradients of a registered torch module."""

    def __init__(self, task: TrainModule, features: Sequence[Feature], module: TorchModule) -> None:
        self._task, self._module = task, module
        self.patients_at_once = max(1, VALUES_AT_ONCE // task.dimension(features))

    def outputs(self, cohort: Cohort, model: FloatArray) -> FloatArray:
        """Return what the module gives, (patients, classes)."""
        return self._module.outputs(model, _rows(self._task, cohort))

    def contribute(
        self, cohort: Cohort, model: FloatArray, mechanism: Mechanism, entropy: Entropy
    ) -> NDArray[np.int64]:
        """Return Σ over patients of their rounded gradients, int64 (dimension,)."""
        target = targets(self._task, cohort.features, cohort.columns)
        residual = partial(residuals, self._task.family)
        part = self._module.gradients(model, _rows(self._task, cohort), target, residual)
        return round_contributions(part, mechanism, entropy=entropy)


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed: up to 64 MB, instead of fetching it page by page every time.

    It keeps twice the largest block that was ever freed; a block that is never written to is one
    too. Pages fetched again and again took a third of the time of a sum.
    """
    np.empty(KEPT_BYTES - 2**16, np.uint8)


def patient_gradients(task: TrainGlm, cohort: Cohort, model: FloatArray) -> FloatArray:
    """Return one unclipped gradient per patient, float64 (patients, dimension)."""
    target = targets(task, cohort.features, cohort.columns)
    return gradients(task.family, model, _rows(task, cohort), target)


def _rows(task: Training, cohort: Cohort) -> FloatArray:
    return task.rows(cohort.features, cohort.columns)
