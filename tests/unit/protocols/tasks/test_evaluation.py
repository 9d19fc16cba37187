import numpy as np
import pytest
from pydantic import ValidationError

from protocols.tasks.evaluation import EVERYBODY, Evaluation, ScoreTable
from protocols.tasks.features import by_name
from protocols.tasks.layout import Grouping
from tests.support.patients import FEATURES

BINARY = ScoreTable(classes=1, groups=2, bins=4, label_bins=2)
THREE = ScoreTable(classes=3, groups=1, bins=4, label_bins=2)


def test_one_half_is_always_a_bin_boundary() -> None:
    with pytest.raises(ValidationError, match="bins must be even"):
        Evaluation(bins=7)


@pytest.mark.parametrize("changes", [{"held_out": 0.9}, {"share": 0.95}, {"smallest_cell": 1}])
def test_settings_out_of_range_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Evaluation(**changes)


def test_groups_are_all_patients_or_the_subgroups() -> None:
    features_by_name = by_name(FEATURES)
    assert Evaluation().groups(features_by_name) == (EVERYBODY,)
    assert Evaluation(subgroup=Grouping(feature="sex")).groups(features_by_name) == (
        "female",
        "male",
    )


def test_a_patient_of_a_yes_no_target_is_counted_once() -> None:
    counts = BINARY.contributions(
        np.array([[0.1], [0.5], [1.0]]), np.array([[0], [1], [1]]), np.array([0, 1, 1])
    )
    assert (counts.sum(axis=1) == 1).all()
    table = BINARY.scores_by_cell(counts.sum(axis=0))
    assert table[0, 0, 0, 0] == 1  # group 0, lowest bin, label no
    assert table[0, 1, 2, 1] == 1  # one half falls into the upper half
    assert table[0, 1, 3, 1] == 1  # a score of one falls into the last bin
    assert table.sum() == 3


def test_a_patient_is_counted_once_for_each_of_several_classes_and_once_for_the_prediction() -> (
    None
):
    scores = np.array([[0.7, 0.2, 0.1], [0.2, 0.3, 0.5]])
    labels = np.array([[1, 0, 0], [0, 1, 0]])
    counts = THREE.contributions(scores, labels, np.array([0, 0]))
    assert (counts.sum(axis=1) == THREE.ones).all()
    assert THREE.ones == 4
    assert THREE.right_by_group(counts.sum(axis=0)).tolist() == [[1.0, 1.0]]
    assert THREE.scores_by_cell(counts.sum(axis=0)).sum(axis=(1, 2, 3)).tolist() == [2, 2, 2]


def test_the_dimension_counts_every_cell() -> None:
    assert BINARY.dimension == BINARY.score_cells == 16
    assert THREE.dimension == THREE.score_cells + 2 == 26
    assert BINARY.right_by_group(np.zeros(16)).size == 0


def test_score_bins_are_always_within_the_table() -> None:
    bins = BINARY.score_bins(np.array([0.0, 0.249, 0.25, 0.999, 1.0]))
    assert bins.tolist() == [0, 0, 1, 3, 3]
