import numpy as np
import pytest

from protocols.tasks.score_table import PLACE_WEIGHT, ScoreTable
from tests.support.patients import dense

EDGES = (0.0, 0.1, 0.5, 0.75, 1.0)
BINARY = ScoreTable(classes=1, groups=2, edges=EDGES, label_bins=2, placed=True)
THREE = ScoreTable(classes=3, groups=1, edges=EDGES, label_bins=2, placed=True)
COUNTS = ScoreTable(classes=1, groups=2, edges=EDGES, label_bins=2, placed=False)


def test_a_patient_is_counted_in_the_bin_above_an_edge() -> None:
    scores = np.array([[0.0], [0.1], [0.5], [0.999], [1.0]])
    assert BINARY.score_bins(scores)[:, 0].tolist() == [0, 1, 2, 3, 3]


@pytest.mark.parametrize("table", [BINARY, COUNTS])
def test_a_patient_of_a_yes_no_target_is_counted_once(table: ScoreTable) -> None:
    added = table.contributions(
        np.array([[0.05], [0.5], [1.0]]), np.array([[0], [1], [1]]), np.array([0, 1, 1])
    )
    counts = table.counts_of(dense(added, table.dimension).sum(axis=0))
    assert counts[0, 0, 0, 0] == counts[0, 1, 2, 1] == counts[0, 1, 3, 1] == 1
    assert counts.sum() == 3


def test_places_are_from_minus_one_to_one_and_squares_about_one_half() -> None:
    scores = np.array([[0.1], [0.3], [0.5 - 1e-12], [1.0]])
    added = BINARY.contributions(scores, np.array([[0], [0], [1], [1]]), np.zeros(4, np.int64))
    vectors = dense(added, BINARY.dimension)
    places = [BINARY.places_of(vector).sum() for vector in vectors]
    squares = [BINARY.squares_of(vector).sum() for vector in vectors]
    assert places == pytest.approx([-1.0, 0.0, 1.0, 1.0])
    assert squares == pytest.approx([0.5, -0.5, 0.5, 0.5])


def test_the_norm_is_reached_at_an_edge_and_never_exceeded() -> None:
    scores = np.linspace(0, 1, 401)[:, None]
    added = BINARY.contributions(scores, np.zeros((401, 1), np.int64), np.zeros(401, np.int64))
    norms = np.square(dense(added, BINARY.dimension)).sum(axis=1)
    assert norms.max() == pytest.approx(BINARY.squared_norm) == 1 + 1.25 * PLACE_WEIGHT**2


def test_a_patient_is_counted_once_for_each_of_several_classes_and_once_for_the_prediction() -> (
    None
):
    scores = np.array([[0.7, 0.2, 0.1], [0.2, 0.3, 0.5]])
    labels = np.array([[1, 0, 0], [0, 1, 0]])
    vector = dense(THREE.contributions(scores, labels, np.array([0, 0])), THREE.dimension)
    assert THREE.right_by_group(vector.sum(axis=0)).tolist() == [[1.0, 1.0]]
    assert THREE.counts_of(vector.sum(axis=0)).sum(axis=(1, 2, 3)).tolist() == [2, 2, 2]
    assert THREE.squared_norm == 3 * (1 + 1.25 * PLACE_WEIGHT**2) + 1


def test_the_coordinates_of_a_patient_are_distinct() -> None:
    generator = np.random.default_rng(0)
    scores = generator.random((500, 3))
    labels = np.eye(3, dtype=np.int64)[generator.integers(0, 3, 500)]
    added = THREE.contributions(scores, labels, np.zeros(500, np.int64))
    ordered = np.sort(added.coordinates, axis=1)
    assert (np.diff(ordered, axis=1) > 0).all()
    assert ordered.min() >= 0
    assert ordered.max() < THREE.dimension


def test_the_dimension_counts_every_cell() -> None:
    assert COUNTS.dimension == 16
    assert BINARY.dimension == 16 + 16 + 8
    assert THREE.dimension == 24 + 24 + 12 + 2
