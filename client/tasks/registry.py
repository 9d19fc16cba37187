"""The one way from records to what a country contributes: an installed task kind, by name.

A study names a task kind and a phase; what is not installed here is refused. What comes back is
an integer sum whose per-patient norm is bounded exactly; noise and mask are added at the door.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from client.records.cohort import BoolArray, Cohort, held_out, select
from client.records.source import Records
from client.tasks.evaluate import evaluation_counts
from client.tasks.glm import gradients, targets
from client.tasks.stats import table_counts
from protocols.errors import ProtocolFault, ReasonCode, Refusal
from protocols.mechanism import Mechanism
from protocols.rounding import Entropy, poisson_sample, round_contributions
from protocols.tasks import Task, TrainGlm
from protocols.tasks.features import Condition, Feature, FloatArray
from protocols.tasks.layout import vector_from_bytes
from protocols.tasks.schedule import COHORT_FLOOR, COUNT, EVALUATE, HISTOGRAM, TRAIN, same_but_noise

INSTALLED: Mapping[str, tuple[str, ...]] = {
    "train/glm": (COHORT_FLOOR, TRAIN, EVALUATE),
    "stats/count": (COHORT_FLOOR, COUNT),
    "stats/histogram": (COHORT_FLOOR, HISTOGRAM),
}
"""Task kinds that this node runs, and the phases of each."""
CELLS_AT_ONCE = 4_000_000
"""Patients are taken in parts, so that a wide table needs 32 MB at a time and not all memory."""


@dataclass(frozen=True)
class Assignment:
    """One study's task on this country's cohort of one data version."""

    task: Task
    cohort: Cohort
    kept_apart: BoolArray

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
    ) -> Self:
        """Select the study's patients and split them by the node's keyed hash.

        `study` is the study's digest. Raises RecordFault where dictionary and study do not fit,
        which the dictionary alone decides.
        """
        cohort = select(records, features, task.names_used(features), conditions)
        evaluation = task.evaluation if isinstance(task, TrainGlm) else None
        share = evaluation.held_out if evaluation else 0.0
        return cls(task, cohort, held_out(split_secret, study, cohort.ids, share))

    def lattice_sum(
        self, mechanism: Mechanism, payload: bytes, *, entropy: Entropy
    ) -> NDArray[np.int64]:
        """Return Σ over patients of their rounded contributions, int64 (dimension,), un-noised.

        The mechanism names the phase. `payload` is the model for training and evaluation, and
        empty for the rest. Draws this round's Poisson sample where the mechanism has a rate
        below one. Raises Refusal where phase, mechanism or payload are not the task's: all of
        this is decided before a record is looked at.
        """
        compute = self._contributor(mechanism, payload)
        cohort = _sampled(self._eligible(mechanism.phase), mechanism, entropy)
        total = np.zeros(mechanism.dimension, dtype=np.int64)
        step = max(1, CELLS_AT_ONCE // mechanism.dimension)
        # A model may be made so that some patients' numbers overflow: they then count as zero or
        # fall into a border cell, without a warning that would depend on a record.
        with np.errstate(all="ignore"):
            for start in range(0, cohort.patients, step):
                part = compute(cohort.between(start, start + step))
                total += round_contributions(part, mechanism, entropy=entropy)
        return total

    def _eligible(self, phase: str) -> Cohort:
        if phase == TRAIN:
            return self._training
        return self._held_out if phase == EVALUATE else self.cohort

    @cached_property
    def _training(self) -> Cohort:
        return self.cohort.where(~self.kept_apart)

    @cached_property
    def _held_out(self) -> Cohort:
        return self.cohort.where(self.kept_apart)

    def _contributor(self, mechanism: Mechanism, payload: bytes) -> Callable[[Cohort], FloatArray]:
        phase, task = mechanism.phase, self.task
        self._check(mechanism)
        if isinstance(task, TrainGlm) and phase != COHORT_FLOOR:
            model = _model(payload, task.dimension(self.cohort.features))
            compute = evaluation_counts if phase == EVALUATE else patient_gradients
            return lambda cohort: compute(task, cohort, model)
        if payload:
            raise _malformed(f"The phase `{phase}` takes no model, and one arrived")
        if isinstance(task, TrainGlm) or phase == COHORT_FLOOR:
            return _presence
        return partial(table_counts, task)

    def _check(self, mechanism: Mechanism) -> None:
        phase, kind = mechanism.phase, self.task.kind
        if phase not in INSTALLED.get(kind, ()):
            raise Refusal(
                ReasonCode.TASK_UNKNOWN,
                f"The phase `{phase}` of `{kind}` is not installed on this node",
                why="a node runs only the task kinds installed on it",
                fix="update this node's software, or ask for a study of an installed kind",
            )
        templates = self.task.schedule(self.cohort.features)
        if not any(same_but_noise(template, mechanism) for template in templates):
            raise _malformed(f"The release `{phase}` is not the one that the study's task makes")


def patient_gradients(task: TrainGlm, cohort: Cohort, model: FloatArray) -> FloatArray:
    """Return one unclipped gradient per patient, float64 (patients, dimension)."""
    rows = task.rows(cohort.features, cohort.columns)
    target = targets(task, cohort.features, cohort.columns)
    return gradients(task.family, model, rows, target)


def _presence(cohort: Cohort) -> FloatArray:
    return np.ones((cohort.patients, 1))


def _sampled(cohort: Cohort, mechanism: Mechanism, entropy: Entropy) -> Cohort:
    if mechanism.sampling_rate >= 1:
        return cohort
    sample = poisson_sample(cohort.patients, mechanism.sampling_rate, entropy=entropy)
    return cohort.where(sample)


def _model(payload: bytes, dimension: int) -> FloatArray:
    try:
        return vector_from_bytes(payload, dimension)
    except ProtocolFault as fault:
        raise _malformed(fault.what, fault.why) from fault


def _malformed(what: str, why: str = "it is not what the signed study says") -> Refusal:
    return Refusal(ReasonCode.MALFORMED, what, why=why, fix="ask the coordinator what it sent")
