"""The 95 % intervals of an evaluation cover the truth about as often as they state.

Each test draws 200 studies. If an interval covers with probability p, the number of misses is
binomial. The bounds below fail wrongly with probability under 1e-4 if 0.95 holds; a mutant that
leaves the noise out of the interval misses far more often.
"""

import numpy as np
import pytest

from protocols.tasks import TrainGlm
from protocols.tasks.evaluation import Evaluation
from server.learning import figures
from server.learning.estimates import Estimate
from server.learning.evaluate import evaluate
from tests.support.patients import FEATURES, glm, release

pytestmark = pytest.mark.statistical

STUDIES = 200
FEWEST = 177
"""P(Binomial(200, 0.95) < 177) = 6e-5."""
BINS = 10
TASK: TrainGlm = glm(evaluation=Evaluation(bins=BINS))


def truth(separation: float) -> np.ndarray:
    """Return the true probabilities of score bin and label."""
    position = (np.arange(BINS) + 0.5) / BINS
    shape = np.exp(-((position - 0.5) ** 2) / 0.08)
    ill = 1 / (1 + np.exp(-separation * (position - 0.5)))
    chances = np.column_stack([shape * (1 - ill), shape * ill])
    return np.asarray(chances / chances.sum())


def studies(chances: np.ndarray, patients: int, std: int) -> list[dict[str, Estimate | None]]:
    draw = np.random.default_rng(17)
    mechanism = release(TASK, "evaluate", noise_std=std)
    evaluations = []
    for _ in range(STUDIES):
        counts = draw.multinomial(patients, chances.reshape(-1)) * mechanism.scale
        noisy_sums = np.rint(counts + draw.normal(0, 2 * std, counts.size)).astype(np.int64)
        report = evaluate(TASK, FEATURES, mechanism, noisy_sums, countries=4, generator=draw)
        evaluations.append(dict(report.everybody.figures))
    return evaluations


@pytest.mark.parametrize("separation", [2.0, 8.0])
@pytest.mark.parametrize(("patients", "std"), [(300, 64), (300, 400), (3_000, 400)])
@pytest.mark.parametrize("name", ["auc", "accuracy", "calibration_in_the_large"])
def test_intervals_cover(separation: float, patients: int, std: int, name: str) -> None:
    chances = truth(separation)
    figure = getattr(figures, name)
    right = float(figure(chances * 1e9))
    hits = 0
    for study_result in studies(chances, patients, std):
        estimate = study_result[name]
        assert estimate is not None
        hits += estimate.low <= right <= estimate.high
    assert hits >= FEWEST


def test_intervals_are_not_wider_than_needed() -> None:
    widths = []
    for study_result in studies(truth(8.0), 3_000, 10):
        estimate = study_result["accuracy"]
        assert estimate is not None
        widths.append(estimate.high - estimate.low)
    plain = 2 * 1.96 * np.sqrt(0.75 * 0.25 / 3_000)
    assert np.mean(widths) < 1.3 * plain
