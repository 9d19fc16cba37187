"""Honest sums pass with exact noise at their bounds; sums beyond bounds and noise are named."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from governance.documents.study import Study
from protocols.numerics.mechanism import Mechanism
from protocols.numerics.noise import DiscreteGaussian
from protocols.numerics.rounding import round_sparse
from protocols.tasks import Training
from protocols.tasks.error_table import ErrorTable
from protocols.tasks.schedule import EVALUATE, TRAIN
from protocols.tasks.score_table import Contributions, ScoreTable
from server.learning.plausibility import BEYOND, PLACES, SQUARES, WHOSE, impossible_figure
from tests.support.documents import agreement, study_fields, training_fields, with_schedule
from tests.support.patients import dense

COUNTRIES = 4
NOISE = 3_000
LEVELS = {"name": "stage", "type": "categorical", "levels": ["one", "two", "three"]}


def made(**changes: Any) -> Study:
    return with_schedule(Study.model_validate(study_fields(agreement(), **changes)), NOISE)


def training(**task: Any) -> Study:
    fields = training_fields(4, **{"evaluation": {"held_out": 0.25, "bins": 4}} | task)
    features = [*study_fields(agreement())["features"], LEVELS]
    return made(**fields, features=features)


TABLE = made()
YES_NO = training()
CLASSES = training(family="multinomial", target="stage")
LOCAL = training(local={"steps": 5})
PLACED = training(evaluation={"held_out": 0.25, "edges": [0.1, 0.5, 0.7]})
ERRORS = training(
    family="linear", target="age", evaluation={"held_out": 0.25, "edges": [0.05, 0.2]}
)


def scores_of(study: Study) -> ScoreTable:
    assert isinstance(study.task, Training)
    table = study.task.score_table(study.features)
    assert isinstance(table, ScoreTable)
    return table


def errors_of(study: Study) -> ErrorTable:
    assert isinstance(study.task, Training)
    table = study.task.score_table(study.features)
    assert isinstance(table, ErrorTable)
    return table


CLASSES_TABLE = scores_of(CLASSES)


def mechanism_of(study: Study, phase: str = "") -> Mechanism:
    chosen = [m for m in study.mechanisms if m.phase == (phase or study.mechanisms[-1].phase)]
    return chosen[0]


def noise_of(mechanism: Mechanism) -> NDArray[np.int64]:
    source = DiscreteGaussian()
    shares = [source.draw(mechanism.noise_std, mechanism.dimension) for _ in range(COUNTRIES)]
    return np.asarray(np.sum(shares, axis=0), np.int64)


def found(study: Study, phase: str, values: NDArray[np.int64]) -> str:
    mechanism = mechanism_of(study, phase)
    return impossible_figure(study.task, study.features, mechanism, values, countries=COUNTRIES)


def everybody_in(cells: list[int], study: Study, phase: str = "") -> NDArray[np.int64]:
    """Return a sum in which `patients_bound` patients are in each of these cells together."""
    mechanism = mechanism_of(study, phase)
    values = np.zeros(mechanism.dimension, np.int64)
    values[cells] = mechanism.patients_bound * mechanism.scale // len(cells)
    return values


class TestHonestSums:
    """Each at its bounds, with the exact noise; a false alarm has a probability below 2^-39."""

    @pytest.mark.parametrize("cells", [[0], [0, 1, 2, 3]], ids=str)
    def test_a_table_of_all_patients_passes(self, cells: list[int]) -> None:
        values = everybody_in(cells, TABLE)
        for _ in range(50):
            assert found(TABLE, "histogram", values + noise_of(mechanism_of(TABLE))) == ""

    def test_an_empty_table_passes(self) -> None:
        mechanism = mechanism_of(TABLE)
        for _ in range(50):
            assert found(TABLE, "histogram", noise_of(mechanism)) == ""

    @pytest.mark.parametrize("study", [YES_NO, CLASSES], ids=["yes or no", "classes"])
    def test_a_training_sum_of_equal_patients_passes(self, study: Study) -> None:
        mechanism = mechanism_of(study, TRAIN)
        values = np.zeros(mechanism.dimension, np.int64)
        sampled = int(mechanism.patients_bound * mechanism.sampling_rate)
        values[0] = int(sampled * mechanism.sensitivity)
        for _ in range(20):
            assert found(study, TRAIN, values + noise_of(mechanism)) == ""

    def test_an_evaluation_of_a_yes_no_target_passes(self) -> None:
        mechanism = mechanism_of(YES_NO, EVALUATE)
        values = everybody_in([0, 7], YES_NO, EVALUATE) // 4  # a quarter is held out
        assert found(YES_NO, EVALUATE, values + noise_of(mechanism)) == ""

    def test_an_evaluation_of_classes_passes(self) -> None:
        mechanism = mechanism_of(CLASSES, EVALUATE)
        values = evaluation_of_classes(np.zeros(600, np.int64)) + noise_of(mechanism)
        assert found(CLASSES, EVALUATE, values) == ""

    def test_an_update_at_its_reach_passes(self) -> None:
        mechanism = mechanism_of(LOCAL, TRAIN)
        values = np.full(mechanism.dimension, COUNTRIES * mechanism.reach)
        assert found(LOCAL, TRAIN, values) == found(LOCAL, TRAIN, -values) == ""


def evaluation_of_classes(true: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the honest evaluation of patients with these classes and a model that knows them."""
    table = CLASSES_TABLE
    scores = np.eye(3)[true]
    labels = np.eye(3, dtype=np.int64)[true]
    added = table.contributions(scores, labels, np.zeros(len(true), np.int64))
    counts = dense(added, table.dimension).sum(axis=0)
    return np.asarray(counts * mechanism_of(CLASSES, EVALUATE).scale, np.int64)


def rounded(study: Study, added: Contributions) -> NDArray[np.int64]:
    return round_sparse(*added, mechanism_of(study, EVALUATE))


def held_out(number: int) -> NDArray[np.float64]:
    return np.asarray(np.random.default_rng(5).random((2, number)), dtype=np.float64)


def of_scores(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the honest evaluation of patients with these scores, of a yes/no target."""
    labels = (np.arange(len(scores)) % 2)[:, None]
    groups = np.zeros(len(scores), np.int64)
    return rounded(PLACED, scores_of(PLACED).contributions(scores[:, None], labels, groups))


def of_errors(errors: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.int64]:
    groups = np.zeros(len(errors), np.int64)
    return rounded(ERRORS, errors_of(ERRORS).contributions(errors, targets, groups))


class TestEvaluationsWithPlacesAndErrors:
    @pytest.mark.parametrize(
        "scores", [held_out(2_000)[0], np.zeros(2_000), np.full(2_000, 0.5), np.ones(2_000)]
    )
    def test_honest_scores_pass(self, scores: NDArray[np.float64]) -> None:
        noise = noise_of(mechanism_of(PLACED, EVALUATE))
        assert found(PLACED, EVALUATE, of_scores(scores)) == ""
        assert found(PLACED, EVALUATE, of_scores(scores) + noise) == ""

    @pytest.mark.parametrize("size", [0.0, 0.3, 1.0, -1.0])
    @pytest.mark.parametrize("target", [-1.0, 0.0, 0.6, 1.0])
    def test_honest_errors_pass(self, size: float, target: float) -> None:
        values = of_errors(np.full(2_000, size), np.full(2_000, target))
        assert found(ERRORS, EVALUATE, values) == ""
        assert found(ERRORS, EVALUATE, values + noise_of(mechanism_of(ERRORS, EVALUATE))) == ""

    @pytest.mark.parametrize("sign", [1, -1])
    @pytest.mark.parametrize(("coordinate", "name"), [(8, PLACES), (16, SQUARES)])
    def test_places_beyond_their_bins_are_named(
        self, sign: int, coordinate: int, name: str
    ) -> None:
        values = of_scores(held_out(2_000)[0])
        values[coordinate] += sign * 1_000 * mechanism_of(PLACED, EVALUATE).scale
        assert name in found(PLACED, EVALUATE, values)

    @pytest.mark.parametrize(
        ("moment", "sign", "name"),
        [
            (0, -1, "a sum of errors or of their squares"),
            (0, 1, "between the sum of absolute errors and the number of patients"),
            (2, 1, "between the sum of squared errors and that of absolute errors"),
            (3, 1, "the sum of the targets' positions"),
            (3, -1, "the sum of the targets' positions"),
            (4, 1, "the same room for the squares of these positions"),
        ],
    )
    def test_errors_that_contradict_each_other_are_named(
        self, moment: int, sign: int, name: str
    ) -> None:
        errors, targets = held_out(500)
        values = of_errors(errors * 0.2, targets)
        first = errors_of(ERRORS).cells
        values[first + moment] += sign * 2_500 * mechanism_of(ERRORS, EVALUATE).scale
        assert name in found(ERRORS, EVALUATE, values)

    def test_more_patients_than_are_held_out_are_named(self) -> None:
        values = 6 * of_errors(np.zeros(2_000), np.zeros(2_000))
        assert "of the evaluation is 12,000" in found(ERRORS, EVALUATE, values)


class TestImpossibleSums:
    def test_more_patients_than_the_bound_are_named(self) -> None:
        reason = found(TABLE, "histogram", 2 * everybody_in([0, 1, 2, 3], TABLE))
        assert reason.startswith(f"{BEYOND}: the number of patients in the table is 20,000; ")
        assert reason.endswith(WHOSE)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_a_cell_beyond_its_bounds_is_named(self, sign: int) -> None:
        reason = found(TABLE, "histogram", sign * 3 * everybody_in([2], TABLE))
        assert "a cell of the table is " in reason

    @pytest.mark.parametrize("excess", [1.0, 1e6])
    def test_a_training_sum_beyond_the_longest_is_named(self, excess: float) -> None:
        mechanism = mechanism_of(YES_NO, TRAIN)
        values = np.zeros(mechanism.dimension, np.int64)
        values[1] = int(mechanism.patients_bound * mechanism.sensitivity * (1 + excess))
        assert "a coordinate of the training sum" in found(YES_NO, TRAIN, values)

    def test_a_training_sum_long_in_all_directions_is_named(self) -> None:
        mechanism = mechanism_of(YES_NO, TRAIN)
        sampled = mechanism.patients_bound * mechanism.sampling_rate
        values = np.full(mechanism.dimension, int(sampled * mechanism.sensitivity))
        assert "the length of the training sum" in found(YES_NO, TRAIN, values)

    def test_a_million_patients_in_an_evaluation_are_named(self) -> None:
        values = 100 * everybody_in([0, 7], YES_NO, EVALUATE)
        reason = found(YES_NO, EVALUATE, values)
        assert "evaluation is 500,000; the bounds allow 0 to " in reason

    def test_more_than_the_held_out_part_is_named(self) -> None:
        reason = found(YES_NO, EVALUATE, everybody_in([*range(8)], YES_NO, EVALUATE))
        assert "the number of patients in the evaluation is 10,000" in reason

    @pytest.mark.parametrize(
        ("cells", "figure"),
        [
            ([0], "the difference between the numbers of patients of two classes"),
            ([-1], "the difference between predictions, right and wrong, and patients"),
        ],
    )
    def test_counts_that_contradict_each_other_are_named(
        self, cells: list[int], figure: str
    ) -> None:
        values = evaluation_of_classes(np.zeros(600, np.int64))
        values[cells] += 2_000 * mechanism_of(CLASSES, EVALUATE).scale
        assert figure in found(CLASSES, EVALUATE, values)

    def test_more_right_predictions_than_patients_are_named(self) -> None:
        """Their number and that of the wrong ones still add up to the patients."""
        values = evaluation_of_classes(np.zeros(600, np.int64))
        moved = 2_000 * mechanism_of(CLASSES, EVALUATE).scale
        values[-2:] += np.array([-moved, moved])
        assert "a cell of the evaluation is " in found(CLASSES, EVALUATE, values)

    def test_levels_that_more_patients_have_than_there_are_patients_are_named(self) -> None:
        table = CLASSES_TABLE
        values = evaluation_of_classes(np.zeros(600, np.int64))
        cells = values[:24].reshape(table.block)  # a view; move patients from "no" to "yes"
        moved = 2_000 * mechanism_of(CLASSES, EVALUATE).scale
        for k in (1, 2):
            cells[k, 0, 0, 0] -= moved
            cells[k, 0, 0, 1] += moved
        cells[:, 0, 0, 0] += moved
        values[-1] += moved
        assert "the patients of all levels and all patients" in found(CLASSES, EVALUATE, values)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_an_update_beyond_its_reach_is_named(self, sign: int) -> None:
        mechanism = mechanism_of(LOCAL, TRAIN)
        values = np.zeros(mechanism.dimension, np.int64)
        values[-1] = sign * (COUNTRIES * mechanism.reach + 1)
        assert "a coordinate of the update" in found(LOCAL, TRAIN, values)

    def test_the_largest_numbers_of_a_lane_are_named(self) -> None:
        for value in (2**63 - 1, -(2**63)):
            values = np.full(mechanism_of(TABLE).dimension, value)
            assert found(TABLE, "histogram", values).startswith(BEYOND)
