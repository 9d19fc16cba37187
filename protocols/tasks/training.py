"""Shared parts of all training tasks: public constants, target, schedule, link functions.

In each round the node computes one gradient per patient at the received model; these are clipped,
rounded, summed, noised and masked. The server divides the opened sum by the public
constant q·patients, never by a country's size. Source: Abadi et al. 2016, Algorithm 1, with the
noise of Kairouz, Liu, Steinke 2021.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from protocols.errors import ProtocolFault
from protocols.numerics.mechanism import (
    MAX_COORDINATES,
    SMALLEST_NOISE_STD,
    SMALLEST_RATE,
    Mechanism,
)
from protocols.tasks.error_table import ErrorTable
from protocols.tasks.evaluation import Evaluation
from protocols.tasks.features import (
    Columns,
    Feature,
    FeatureKind,
    FeatureName,
    FloatArray,
    Missing,
    by_name,
    lookup,
)
from protocols.tasks.layout import IntArray, encode_rows, row_width
from protocols.tasks.local import LocalMode
from protocols.tasks.schedule import (
    COHORT_FLOOR_FRACTION,
    EVALUATE,
    LOCAL_STEP,
    TRAIN,
    bounded,
    cohort_floor,
    counted,
    rounded_scale,
)
from protocols.tasks.score_table import ScoreTable
from protocols.tasks.sizes import Size
from protocols.tasks.tensors import Tensor


class Family(StrEnum):
    """The kind of target, which decides the model that is fitted."""

    LOGISTIC = "logistic"
    """A yes/no target."""
    LINEAR = "linear"
    """A bounded number, modelled on its encoded scale."""
    MULTINOMIAL = "multinomial"
    """One of several levels."""


LINEAR_LABEL_BINS = 10
"""Bins of a numeric target in the table of a study of an earlier version."""
HALF = 0.5
TARGET_KIND = {
    Family.LOGISTIC: FeatureKind.BOOLEAN,
    Family.LINEAR: FeatureKind.NUMERIC,
    Family.MULTINOMIAL: FeatureKind.CATEGORICAL,
}


class Training(BaseModel, ABC):
    """Parameters of one training study. All are public constants.

    `patients` is the divisor of the gradient sum: about how many patients train in all countries.
    `patients_bound` is the largest number that all countries together could contribute. Empty
    `inputs` mean every feature except the target. `momentum` is Nesterov's; the released model is
    the mean of the iterates of the last `average_last` share of the rounds. `l2` weighs a penalty
    on every coordinate except the biases. With `local`, a country takes several steps by itself in
    each round (`protocols.tasks.local`); momentum and averaging then apply to rounds, and the
    penalty to steps. `by_country` gives each country a baseline of its own
    (`protocols.tasks.by_country`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    family: Family
    target: FeatureName
    inputs: Annotated[tuple[FeatureName, ...], Field(max_length=10_000)] = ()
    rounds: Annotated[int, Field(ge=1, le=10_000)]
    sampling_rate: Annotated[float, Field(ge=SMALLEST_RATE, le=1)] = 1.0
    learning_rate: Annotated[float, Field(gt=0, le=1_000, allow_inf_nan=False)]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    average_last: Annotated[float, Field(ge=0, le=1)] = 0.5
    l2: Annotated[float, Field(ge=0, le=10)] = 0.0
    clip_norm: Annotated[float, Field(gt=0, le=1_000)] = 1.0
    patients: Annotated[int, Field(ge=1, le=10**9)]
    patients_bound: Annotated[int, Field(ge=1, le=10**9)]
    evaluation: Evaluation | None = Evaluation()
    local: LocalMode | None = Field(default=None, exclude_if=lambda mode: mode is None)
    by_country: bool = Field(default=False, exclude_if=lambda chosen: not chosen)

    @abstractmethod
    def model_size(self, features: Sequence[Feature]) -> Size:
        """Return the size of the model vector, from counts alone."""

    @abstractmethod
    def tensors(self, features: Sequence[Feature]) -> tuple[Tensor, ...]:
        """Return the parts of the model vector, in its order."""

    @abstractmethod
    def initial(self, features: Sequence[Feature]) -> FloatArray:
        """Return the model that the first round starts from, (dimension,)."""

    @abstractmethod
    def weights_only(self, features: Sequence[Feature], vector: FloatArray) -> FloatArray:
        """Return a copy of a model vector with zero for every coordinate that is not penalised."""

    @abstractmethod
    def rows(self, features: Sequence[Feature], columns: Columns) -> FloatArray:
        """Return the model's inputs, (patients, coordinates)."""

    def _train_template(self, features: Sequence[Feature]) -> Mechanism:
        """Return the template of the training release: whole gradients, rounded."""
        dimension = self.dimension(features)
        return Mechanism(
            phase=TRAIN,
            rounds=self.rounds,
            sampling_rate=self.sampling_rate,
            dimension=dimension,
            clip_norm=self.clip_norm,
            scale=rounded_scale(self.clip_norm, dimension),
            noise_std=SMALLEST_NOISE_STD,
            patients_bound=self.patients_bound,
        )

    def check(self, features: Sequence[Feature]) -> None:
        """Raise ProtocolFault if the task does not fit the declared features."""
        table = by_name(features)
        target = lookup(table, self.target, "target")
        if target.type is not TARGET_KIND[self.family]:
            raise ProtocolFault(
                f"A {self.family} model cannot have the {target.type} target `{self.target}`",
                why=f"its target must be {TARGET_KIND[self.family]}",
                fix="choose another family or another target",
            )
        if target.missing is not Missing.EXCLUDE:
            raise ProtocolFault(
                f"The study includes patients whose target `{self.target}` is missing",
                why="such a patient can neither train nor evaluate the model",
                fix="declare the target with `missing: exclude`, or leave `missing` out",
            )
        self._check_inputs(table)
        if self.evaluation is not None:
            self._check_evaluation(self.evaluation, table)
        for size in self._sizes(features):
            size.require()

    def _check_evaluation(self, evaluation: Evaluation, table: Mapping[str, Feature]) -> None:
        if evaluation.subgroup is not None:
            evaluation.subgroup.check(table, "subgroup")
        yes_no = self.family is Family.LOGISTIC
        if yes_no and evaluation.edges and HALF not in evaluation.edges:
            raise ProtocolFault(
                "The edges of the evaluation's bins do not include 0.5",
                why="a score above 0.5 counts as yes, so accuracy is counted at this edge",
                fix="add 0.5 to `edges`, or remove them; `study check` then proposes edges",
            )
        if evaluation.prevalence is not None and not yes_no:
            raise ProtocolFault(
                f"The evaluation of a {self.family} model declares a prevalence",
                why="only a yes/no target has one",
                fix="remove `prevalence`",
            )

    def _sizes(self, features: Sequence[Feature]) -> Iterator[Size]:
        """Yield the sizes of everything that either side builds from this task."""
        yield self.model_size(features)
        yield Size(
            name="encoded row of a patient",
            units="coordinates",
            terms=[(row_width(self.input_features(features)),)],
            limit=MAX_COORDINATES,
            why="each coordinate is computed for every patient",
            fix="use fewer inputs, or fewer levels",
        )
        if self.local is not None:
            yield Size.of_steps(self.rounds, self.local.steps)
        if self.evaluation is not None:
            yield Size.of_table("evaluation", *self.score_table(features).terms)

    def _check_inputs(self, table: Mapping[str, Feature]) -> None:
        for name in self.inputs:
            lookup(table, name, "list of inputs")
        if len(table) < 2:  # noqa: PLR2004 - the target and at least one input
            raise ProtocolFault(
                "A model needs at least one input besides its target",
                why="the study declares no other feature",
                fix="add features to the study",
            )
        if self.target in self.inputs or len(set(self.inputs)) != len(self.inputs):
            raise ProtocolFault(
                "The inputs include the target, or a feature twice",
                why="a model must predict its target from other features, each used once",
                fix="list each input once, without the target",
            )

    def names_used(self, features: Sequence[Feature]) -> tuple[str, ...]:
        """Return the features whose values the task reads: target, inputs, subgroup."""
        inputs = tuple(feature.name for feature in self.input_features(features))
        subgroup = self.evaluation.subgroup if self.evaluation else None
        extra = (subgroup.feature,) if subgroup else ()
        return tuple(dict.fromkeys((self.target, *inputs, *extra)))

    def input_features(self, features: Sequence[Feature]) -> tuple[Feature, ...]:
        """Return the features that a prediction is made from, in coordinate order."""
        if not self.inputs:
            return tuple(feature for feature in features if feature.name != self.target)
        table = by_name(features)
        return tuple(table[name] for name in self.inputs)

    def target_feature(self, features: Sequence[Feature]) -> Feature:
        """Return the target."""
        return by_name(features)[self.target]

    def classes(self, features: Sequence[Feature]) -> int:
        """Return how many outputs the model has: one for each level, else one."""
        multinomial = self.family is Family.MULTINOMIAL
        return len(self.target_feature(features).levels) if multinomial else 1

    def dimension(self, features: Sequence[Feature]) -> int:
        """Return the number of coordinates of the model vector."""
        return sum(tensor.size for tensor in self.tensors(features))

    def rate_at(self, round_number: int) -> float:
        """Return the step size of a round, the first being number 1."""
        del round_number
        return self.learning_rate

    def encoded(self, features: Sequence[Feature], columns: Columns) -> FloatArray:
        """Return encoded inputs (patients, coordinates), the bias first."""
        inputs = self.input_features(features)
        return encode_rows(inputs, {f.name: columns[f.name] for f in inputs})

    def score_table(self, features: Sequence[Feature]) -> ScoreTable | ErrorTable:
        """Return the shape of the evaluation table."""
        evaluation = self.evaluation or Evaluation()
        groups, edges = evaluation.group_count(by_name(features)), evaluation.boundaries()
        linear = self.family is Family.LINEAR
        if linear and not evaluation.counts_only:
            return ErrorTable(groups, edges)
        return ScoreTable(
            classes=self.classes(features),
            groups=groups,
            edges=edges,
            label_bins=LINEAR_LABEL_BINS if linear else 2,
            placed=not evaluation.counts_only,
        )

    def schedule(self, features: Sequence[Feature]) -> tuple[Mechanism, ...]:
        """Return the templates of every release: cohort floor, training, evaluation."""
        floor = cohort_floor(self.patients_bound)
        train = self._train_templates(features)
        if self.evaluation is None:
            return floor, *train
        return floor, *train, self._evaluate_template(self.evaluation, features)

    def _evaluate_template(self, evaluation: Evaluation, features: Sequence[Feature]) -> Mechanism:
        table = self.score_table(features)
        if evaluation.counts_only:
            ones = round(table.squared_norm)
            return counted(EVALUATE, table.dimension, ones, self.patients_bound)
        return bounded(EVALUATE, table.dimension, table.squared_norm, self.patients_bound)

    def _train_templates(self, features: Sequence[Feature]) -> tuple[Mechanism, ...]:
        train = self._train_template(features)
        if self.local is None:
            return (train,)
        return self.local.step_template(train), self.local.update_template(train)

    def cost_fractions(self) -> tuple[float, ...]:
        """Return which part of the cost each release of `schedule` has; they sum to one.

        For a sum of updates, which is derived from local steps, it is zero.
        """
        evaluation = self.evaluation.share if self.evaluation else 0.0
        train = 1 - COHORT_FLOOR_FRACTION - evaluation
        training = (train,) if self.local is None else (train, 0.0)
        return (COHORT_FLOOR_FRACTION, *training, *((evaluation,) if self.evaluation else ()))

    @property
    def gradient_phase(self) -> str:
        """The kind of release that is computed from patients' gradients."""
        return TRAIN if self.local is None else LOCAL_STEP

    def predicted(self, features: Sequence[Feature], outputs: FloatArray) -> FloatArray:
        """Return predictions (patients, classes) from a model's outputs of the same shape.

        Probabilities for a yes/no or categorical target; for a number the encoded value, clipped to
        the target's public bounds.
        """
        if self.family is Family.LOGISTIC:
            return sigmoid(outputs)
        if self.family is Family.MULTINOMIAL:
            return softmax(outputs)
        return np.clip(outputs, *self._target_range(features))

    def errors(
        self, features: Sequence[Feature], predicted: FloatArray, column: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return, for a numeric target, each patient's error and target.

        The error is prediction minus target as a share of the target's range; the target is its
        position in its range. Both are from -1 to 1 and have the shape of `predicted`.
        """
        low, high = self._target_range(features)
        actual = self.target_feature(features).scaled(column)
        error = np.clip((predicted - actual) / (high - low), -1, 1)
        return error, 2 * (actual - low) / (high - low) - 1

    def _target_range(self, features: Sequence[Feature]) -> tuple[float, float]:
        target = self.target_feature(features)
        low, high = target.scaled(np.asarray(target.limits))
        return float(low), float(high)


class Predictor(Training):
    """A training task whose model can be applied with NumPy arrays only."""

    @abstractmethod
    def outputs(
        self, features: Sequence[Feature], model: FloatArray, rows: FloatArray
    ) -> FloatArray:
        """Return the model's outputs before the link function, (patients, classes)."""

    def predict(
        self, features: Sequence[Feature], model: FloatArray, rows: FloatArray
    ) -> FloatArray:
        """Return predictions (patients, classes) of a model vector from its rows."""
        return self.predicted(features, self.outputs(features, model, rows))


def sigmoid(z: FloatArray) -> FloatArray:
    """Return 1 / (1 + e^-z) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(z / 2)), dtype=np.float64)


def softmax(z: FloatArray) -> FloatArray:
    """Return row-wise softmax without overflow."""
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)


def one_hot(labels: FloatArray, classes: int) -> IntArray:
    """Return 0/1 labels (patients, classes) of level indices."""
    return np.asarray(labels[:, None] == np.arange(classes), dtype=np.int64)
