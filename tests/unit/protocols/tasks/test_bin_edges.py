import numpy as np
import pytest

from protocols.tasks import Family
from protocols.tasks.bin_edges import ERROR_EDGES, edges_sentence, proposed_edges, with_edges
from protocols.tasks.evaluation import Evaluation
from tests.support.patients import FEATURES, glm


@pytest.mark.parametrize("prevalence", [1e-4, 0.016, 0.1, 0.37, 0.5, 0.9, 0.9999])
@pytest.mark.parametrize("bins", [4, 10, 100])
def test_edges_about_a_prevalence_are_valid_and_spaced_by_odds(
    prevalence: float, bins: int
) -> None:
    evaluation = Evaluation(prevalence=prevalence, bins=bins)
    edges = proposed_edges(Family.LOGISTIC, 1, evaluation)
    assert Evaluation(edges=edges).edges == edges
    assert 0.5 in edges
    others = np.array([edge for edge in edges if edge != 0.5])
    odds = others / (1 - others)
    below, above = odds[odds < 1], odds[odds > 1]
    for side in (below, above):
        ratios = side[1:] / side[:-1]
        if len(ratios):
            assert ratios.max() / ratios.min() < 1.1
    assert min(odds) == pytest.approx(prevalence / (1 - prevalence) * np.exp(-2.4), rel=0.02) or (
        edges[0] == 0.5
    )


def test_without_a_prevalence_bins_are_equal_and_classes_are_equally_common() -> None:
    assert proposed_edges(Family.LOGISTIC, 1, Evaluation(bins=4)) == (0.25, 0.5, 0.75)
    three = proposed_edges(Family.MULTINOMIAL, 3, Evaluation())
    assert three == proposed_edges(Family.LOGISTIC, 1, Evaluation(prevalence=1 / 3))
    assert proposed_edges(Family.LINEAR, 1, Evaluation()) == ERROR_EDGES


def test_declared_edges_and_a_task_without_evaluation_are_left_alone() -> None:
    declared = glm(evaluation=Evaluation(edges=(0.5,)))
    assert with_edges(declared, FEATURES) is declared
    without = glm(evaluation=None)
    assert with_edges(without, FEATURES) is without
    proposed = with_edges(glm(), FEATURES)
    assert proposed.evaluation is not None
    assert len(proposed.evaluation.edges) == 9


def test_the_number_of_bins_of_a_numeric_target_does_not_count() -> None:
    stated = edges_sentence(glm(Family.LINEAR, evaluation=Evaluation(bins=6)))
    left_out = edges_sentence(glm(Family.LINEAR, evaluation=Evaluation()))
    assert stated == f"{left_out}; `bins` does not count"
    assert edges_sentence(glm(evaluation=None)) == ""
