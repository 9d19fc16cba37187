import numpy as np
import pytest

from server.learning import figures

BINS = 10


def table(scores: np.ndarray, labels: np.ndarray, label_bins: int = 2) -> np.ndarray:
    cells = np.zeros((BINS, label_bins))
    at = np.clip((scores * BINS).astype(int), 0, BINS - 1)
    np.add.at(cells, (at, labels), 1)
    return cells


def sample(seed: int, patients: int = 300) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    scores = draw.random(patients)
    return scores, (draw.random(patients) < scores).astype(int)


def plain_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Count wins over all pairs, half a win for a tie."""
    wins = [
        (yes > no) + (yes == no) / 2 for yes in scores[labels == 1] for no in scores[labels == 0]
    ]
    return float(np.mean(wins))


@pytest.mark.parametrize("seed", range(5))
def test_auc_agrees_with_counting_pairs_of_binned_scores(seed: int) -> None:
    scores, labels = sample(seed)
    binned = np.floor(scores * BINS)
    assert figures.auc(table(scores, labels)) == pytest.approx(plain_auc(binned, labels))


def test_auc_is_one_for_perfect_zero_for_reversed_and_one_half_for_equal_scores() -> None:
    apart = table(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1]))
    assert figures.auc(apart) == 1.0
    assert figures.auc(apart[::-1]) == 0.0
    same = table(np.full(4, 0.5), np.array([0, 1, 0, 1]))
    assert figures.auc(same) == 0.5


def test_a_table_that_does_not_define_a_figure_gives_nan() -> None:
    one_label = table(np.array([0.1, 0.9]), np.array([1, 1]))
    assert np.isnan(figures.auc(one_label))
    empty = np.zeros((BINS, 2))
    for figure in (
        figures.auc,
        figures.accuracy,
        figures.calibration_in_the_large,
        figures.expected_calibration_error,
        figures.mean_absolute_error,
        figures.mean_residual,
        figures.variance_explained,
    ):
        assert np.isnan(figure(empty))
    assert np.isnan(figures.share_right(np.zeros(2)))


def test_accuracy_agrees_with_plain_counting() -> None:
    scores, labels = sample(7)
    assert figures.accuracy(table(scores, labels)) == pytest.approx(
        np.mean((scores >= 0.5) == labels)
    )


def test_calibration_of_a_calibrated_and_of_a_biased_model() -> None:
    scores, labels = sample(3, patients=20_000)
    good = table(scores, labels)
    assert abs(figures.calibration_in_the_large(good)) < 0.02
    assert figures.expected_calibration_error(good) < 0.03
    timid = table(np.clip(scores - 0.2, 0, 1), labels)
    assert figures.calibration_in_the_large(timid) == pytest.approx(0.18, abs=0.03)
    assert figures.expected_calibration_error(timid) > 0.15


def test_expected_calibration_error_counts_gaps_that_cancel_in_the_large() -> None:
    cells = np.zeros((BINS, 2))
    cells[0, 1] = 100  # scored 0.05, all ill
    cells[9, 0] = 100  # scored 0.95, all well
    assert figures.calibration_in_the_large(cells) == pytest.approx(0)
    assert figures.expected_calibration_error(cells) == pytest.approx(0.95)


def test_many_tables_at_once_give_the_figures_of_each() -> None:
    tables = np.stack([table(*sample(seed)) for seed in range(4)])
    for figure in (figures.auc, figures.accuracy, figures.expected_calibration_error):
        assert figure(tables).tolist() == [figure(one) for one in tables]


def test_the_share_right_is_that_of_right_top_classes() -> None:
    assert figures.share_right(np.array([25.0, 75.0])) == 0.75


def test_errors_of_a_numeric_target_agree_with_plain_computation() -> None:
    draw = np.random.default_rng(11)
    actual = draw.beta(2, 2, 50_000)
    residual = draw.normal(0, 0.12, 50_000)
    cells = table(np.clip(0.5 + residual, 0, 1), (actual * 10).astype(int), label_bins=10)
    assert figures.mean_absolute_error(cells) == pytest.approx(np.abs(residual).mean(), abs=0.01)
    assert figures.mean_residual(cells) == pytest.approx(0, abs=0.003)
    plain = 1 - (residual**2).mean() / actual.var()
    assert figures.variance_explained(cells) == pytest.approx(plain, abs=0.02)


def test_a_constant_target_has_no_variance_to_explain() -> None:
    cells = np.zeros((BINS, 10))
    cells[5, 3] = 100
    assert np.isnan(figures.variance_explained(cells))
