"""The task of one study on this country's cohort: from records to the integer sum for a release.

The norm of each patient's part is bounded exactly. The door adds noise and mask.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from client.records.cohort import BoolArray, Cohort, held_out, select
from client.records.source import Records
from client.tasks.evaluate import evaluation_contributions
from client.tasks.module_registry import Modules, registered
from client.tasks.registry import require_installed
from client.tasks.requests import malformed, read_model
from client.tasks.stats import table_contributions
from client.tasks.trainers import Trainer, trainer_for
from protocols.numerics.denormals import flushed_denormals
from protocols.numerics.mechanism import Mechanism, Scope
from protocols.numerics.rounding import Entropy, poisson_sample, round_sparse
from protocols.tasks import CountByFeature, CountPatients, Task, Training
from protocols.tasks.features import Condition, Feature
from protocols.tasks.schedule import (
    COHORT_FLOOR,
    EVALUATE,
    LOCAL_STEP,
    TRAIN,
    same_but_noise,
)
from protocols.tasks.score_table import Contributions

PATIENTS_AT_ONCE = 500_000
"""Patients are counted in batches of this many, which need some tens of megabytes each."""
LARGE = 100_000
"""The progress of sums with more coordinates is logged."""
PROGRESS_STEPS = 4

_log = logging.getLogger("pratique.task")

BatchSum = Callable[[Cohort], NDArray[np.int64]]
"""Maps a batch of patients to the sum of their integer contributions."""


@dataclass(frozen=True)
class Assignment:
    """The task of one study on the cohort of one data version.

    `held_out` marks the patients that are held out of training.
    """

    task: Task
    cohort: Cohort
    held_out: BoolArray
    modules: Modules = field(default_factory=registered)

    @classmethod
    def prepare(
        cls,
        task: Task,
        features: Sequence[Feature],
        records: Records,
        *,
        conditions: Sequence[Condition] = (),
        split_secret: bytes,
        split: str,
        modules: Modules | None = None,
    ) -> Self:
        """Select the patients of the study, and split them by the node's keyed hash.

        `split` says what the split is for: the same patients are held out for the same
        text. `modules` are the registered torch modules (by default
        those that come with the node). Raises RecordFault if the dictionary does not fit the study,
        which the dictionary alone decides, and Refusal if the study's module is not installed.
        """
        evaluation = task.evaluation if isinstance(task, Training) else None
        share = evaluation.held_out if evaluation else 0.0
        with flushed_denormals():
            cohort = select(records, features, task.names_used(features), conditions)
            held_out_patients = held_out(split_secret, split, cohort.ids, share)
            assignment = cls(
                task, cohort, held_out_patients, registered() if modules is None else modules
            )
            if isinstance(task, Training):
                _ = assignment.trainer  # built now, so that no message waits for it
        return assignment

    def lattice_sum(
        self, mechanism: Mechanism, payload: bytes, *, entropy: Entropy
    ) -> NDArray[np.int64]:
        """Return Σ over patients of their rounded contributions, int64 (dimension,), without noise.

        The mechanism names the phase. `payload` is the model for training and evaluation, and
        empty otherwise. Draws this round's Poisson sample if the mechanism's rate is below one.
        Raises Refusal if phase, mechanism or payload are not the task's, or if the release is
        derived and so not computed from records; this is decided before a record is read.
        """
        batch_size, batch_sum = self._batch_sum(mechanism, payload, entropy)
        cohort = _sampled(self._eligible(mechanism.phase), mechanism, entropy)
        total = np.zeros(mechanism.dimension, dtype=np.int64)
        progress = _ProgressLog(mechanism)
        # A model may be crafted so that some patients' numbers overflow: they then count as zero or
        # fall into an outermost cell, without a warning that would depend on a record. Or they
        # become so small that the processor would need longer for these patients.
        with np.errstate(all="ignore"), flushed_denormals():
            for start in range(0, cohort.patients, batch_size):
                total += batch_sum(cohort.between(start, start + batch_size))
                progress.reached(start + batch_size, cohort.patients)
        progress.reached(1, 1)
        return total

    @cached_property
    def trainer(self) -> Trainer:
        """Computes the outputs and gradients of a training task on this node."""
        if not isinstance(self.task, Training):
            raise malformed(f"`{self.task.kind}` trains nothing")
        return trainer_for(self.task, self.cohort.features, self.modules)

    def _eligible(self, phase: str) -> Cohort:
        if phase in (LOCAL_STEP, TRAIN):
            return self._training
        return self._evaluation if phase == EVALUATE else self.cohort

    @cached_property
    def _templates(self) -> tuple[Mechanism, ...]:
        return self.task.schedule(self.cohort.features)

    @cached_property
    def _training(self) -> Cohort:
        return self.cohort.where(~self.held_out)

    @cached_property
    def _evaluation(self) -> Cohort:
        return self.cohort.where(self.held_out)

    def _batch_sum(
        self, mechanism: Mechanism, payload: bytes, entropy: Entropy
    ) -> tuple[int, BatchSum]:
        """Return the number of patients in a batch, and the function that sums a batch."""
        phase, task = mechanism.phase, self.task
        self._check(mechanism)
        if isinstance(task, Training) and phase == task.gradient_phase:
            model = read_model(payload, mechanism.dimension)
            trainer = self.trainer
            at_once = trainer.patients_at_once
            return at_once, lambda batch: trainer.contribute(batch, model, mechanism, entropy)
        contributions = self._contributions(phase, payload)
        size = PATIENTS_AT_ONCE
        if phase == EVALUATE:  # the layers of a wide network need more memory than the table
            size = min(size, self.trainer.patients_at_once)
        return size, lambda batch: round_sparse(*contributions(batch), mechanism, entropy=entropy)

    def _contributions(self, phase: str, payload: bytes) -> Callable[[Cohort], Contributions]:
        task = self.task
        if isinstance(task, Training) and phase == EVALUATE:
            model = read_model(payload, task.dimension(self.cohort.features))
            return lambda batch: evaluation_contributions(
                task, batch, self.trainer.outputs(batch, model)
            )
        if payload:
            raise malformed(f"The phase `{phase}` takes no model, and one arrived")
        if isinstance(task, CountPatients | CountByFeature) and phase != COHORT_FLOOR:
            return lambda batch: table_contributions(task, batch)
        return _one_each

    def _check(self, mechanism: Mechanism) -> None:
        phase, kind = mechanism.phase, self.task.kind
        require_installed(kind, phase)
        if not any(same_but_noise(template, mechanism) for template in self._templates):
            raise malformed(f"The release `{phase}` is not a release of the study's task")
        if mechanism.scope is Scope.DERIVED:
            raise malformed(
                f"The request asks for the release `{phase}` from the records",
                "this release is derived from local steps, which have their own noise",
            )


class _ProgressLog:
    """Logs the progress of a large sum, always in the same number of lines.

    So the number of lines does not depend on the size of the cohort.
    """

    def __init__(self, mechanism: Mechanism) -> None:
        self._phase, self._large = mechanism.phase, mechanism.dimension > LARGE
        self._logged = 0

    def reached(self, done: int, patients: int) -> None:
        """Log the steps that are complete once `done` of the patients are summed."""
        steps = min(PROGRESS_STEPS, PROGRESS_STEPS * done // patients)
        for step in range(self._logged + 1, steps + 1):
            if self._large:
                percent = 100 * step // PROGRESS_STEPS
                _log.info("sum under way", extra={"phase": self._phase, "percent": percent})
        self._logged = steps


def _one_each(cohort: Cohort) -> Contributions:
    return Contributions(np.ones((cohort.patients, 1)), np.zeros((cohort.patients, 1), np.int64))


def _sampled(cohort: Cohort, mechanism: Mechanism, entropy: Entropy) -> Cohort:
    if mechanism.sampling_rate >= 1:
        return cohort
    sample = poisson_sample(cohort.patients, mechanism.sampling_rate, entropy=entropy)
    return cohort.where(sample)
