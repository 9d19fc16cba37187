"""One study's task on this country's cohort: from records to the integer sum that it contributes.

The per-patient norm of the sum is bounded exactly; noise and mask are added at the door.
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
from client.tasks.evaluate import evaluation_counts
from client.tasks.module_registry import Modules, registered
from client.tasks.registry import malformed, received_model, require_installed
from client.tasks.stats import table_counts
from client.tasks.trainers import Trainer, trainer_for
from protocols.numerics.mechanism import Mechanism, Scope
from protocols.numerics.rounding import Entropy, poisson_sample, round_contributions
from protocols.tasks import CountByFeature, CountPatients, Task, Training
from protocols.tasks.features import Condition, Feature, FloatArray
from protocols.tasks.schedule import (
    COHORT_FLOOR,
    EVALUATE,
    LOCAL_STEP,
    TRAIN,
    same_but_noise,
)

CELLS_AT_ONCE = 4_000_000
"""Patients are taken in parts, so that a wide table needs 32 MB at a time and not all memory."""
LARGE = 100_000
"""Sums of more coordinates tell the node's operator how far they are."""
PARTS_TOLD = 4

_log = logging.getLogger("pratique.task")

Part = Callable[[Cohort], NDArray[np.int64]]
"""Maps some patients to the sum of their integers."""


@dataclass(frozen=True)
class Assignment:
    """One study's task on this country's cohort of one data version."""

    task: Task
    cohort: Cohort
    kept_apart: BoolArray
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
        study: str,
        modules: Modules | None = None,
    ) -> Self:
        """Select the study's patients and split them by the node's keyed hash.

        `study` is the study's digest, `modules` the registered torch modules (those that come
        with the node, if not given). Raises RecordFault where dictionary and study do not fit,
        which the dictionary alone decides, and Refusal where the study's module is not here.
        """
        cohort = select(records, features, task.names_used(features), conditions)
        evaluation = task.evaluation if isinstance(task, Training) else None
        share = evaluation.held_out if evaluation else 0.0
        apart = held_out(split_secret, study, cohort.ids, share)
        made = cls(task, cohort, apart, registered() if modules is None else modules)
        if isinstance(task, Training):
            _ = made.trainer  # made now, so that no message waits for it
        return made

    def lattice_sum(
        self, mechanism: Mechanism, payload: bytes, *, entropy: Entropy
    ) -> NDArray[np.int64]:
        """Return Σ over patients of their rounded contributions, int64 (dimension,), un-noised.

        The mechanism names the phase. `payload` is the model for training and evaluation, and
        empty for the rest. Draws this round's Poisson sample where the mechanism has a rate
        below one. Raises Refusal where phase, mechanism or payload are not the task's, or where
        the release is derived, and so none of records: decided before a record is looked at.
        """
        step, compute = self._contributor(mechanism, payload, entropy)
        cohort = _sampled(self._eligible(mechanism.phase), mechanism, entropy)
        total = np.zeros(mechanism.dimension, dtype=np.int64)
        told = _Teller(mechanism)
        # A model may be made so that some patients' numbers overflow: they then count as zero or
        # fall into a border cell, without a warning that would depend on a record.
        with np.errstate(all="ignore"):
            for start in range(0, cohort.patients, step):
                total += compute(cohort.between(start, start + step))
                told.reached(start + step, cohort.patients)
        told.reached(1, 1)
        return total

    @cached_property
    def trainer(self) -> Trainer:
        """What computes a training task's outputs and gradients here."""
        if not isinstance(self.task, Training):
            raise malformed(f"`{self.task.kind}` trains nothing")
        return trainer_for(self.task, self.cohort.features, self.modules)

    def _eligible(self, phase: str) -> Cohort:
        if phase in (LOCAL_STEP, TRAIN):
            return self._training
        return self._held_out if phase == EVALUATE else self.cohort

    @cached_property
    def _templates(self) -> tuple[Mechanism, ...]:
        return self.task.schedule(self.cohort.features)

    @cached_property
    def _training(self) -> Cohort:
        return self.cohort.where(~self.kept_apart)

    @cached_property
    def _held_out(self) -> Cohort:
        return self.cohort.where(self.kept_apart)

    def _contributor(
        self, mechanism: Mechanism, payload: bytes, entropy: Entropy
    ) -> tuple[int, Part]:
        """Return how many patients to take at once, and what they give together."""
        phase, task = mechanism.phase, self.task
        self._check(mechanism)
        if isinstance(task, Training) and phase == task.gradient_phase:
            model = received_model(payload, mechanism.dimension)
            trainer = self.trainer
            at_once = trainer.patients_at_once
            return at_once, lambda part: trainer.contribute(part, model, mechanism, entropy)
        vectors = self._vectors(phase, payload)
        step = max(1, CELLS_AT_ONCE // mechanism.dimension)
        if phase == EVALUATE:  # what a wide network makes of a patient is larger than the table
            step = min(step, self.trainer.patients_at_once)
        return step, lambda part: round_contributions(vectors(part), mechanism, entropy=entropy)

    def _vectors(self, phase: str, payload: bytes) -> Callable[[Cohort], FloatArray]:
        task = self.task
        if isinstance(task, Training) and phase == EVALUATE:
            model = received_model(payload, task.dimension(self.cohort.features))
            return lambda part: evaluation_counts(task, part, self.trainer.outputs(part, model))
        if payload:
            raise malformed(f"The phase `{phase}` takes no model, and one arrived")
        if isinstance(task, CountPatients | CountByFeature) and phase != COHORT_FLOOR:
            return lambda part: table_counts(task, part)
        return _presence

    def _check(self, mechanism: Mechanism) -> None:
        phase, kind = mechanism.phase, self.task.kind
        require_installed(kind, phase)
        if not any(same_but_noise(template, mechanism) for template in self._templates):
            raise malformed(f"The release `{phase}` is not the one that the study's task makes")
        if mechanism.scope is Scope.DERIVED:
            raise malformed(
                f"The release `{phase}` was asked of the records",
                "it is made of local steps, which have noise of their own",
            )


class _Teller:
    """Tells the node's operator how far a large sum is; always as often, so it tells no size."""

    def __init__(self, mechanism: Mechanism) -> None:
        self._phase, self._large = mechanism.phase, mechanism.dimension > LARGE
        self._told = 0

    def reached(self, done: int, patients: int) -> None:
        """Take note that so many of the patients are done."""
        parts = min(PARTS_TOLD, PARTS_TOLD * done // patients)
        for part in range(self._told + 1, parts + 1):
            if self._large:
                percent = 100 * part // PARTS_TOLD
                _log.info("sum under way", extra={"phase": self._phase, "percent": percent})
        self._told = parts


def _presence(cohort: Cohort) -> FloatArray:
    return np.ones((cohort.patients, 1))


def _sampled(cohort: Cohort, mechanism: Mechanism, entropy: Entropy) -> Cohort:
    if mechanism.sampling_rate >= 1:
        return cohort
    sample = poisson_sample(cohort.patients, mechanism.sampling_rate, entropy=entropy)
    return cohort.where(sample)
