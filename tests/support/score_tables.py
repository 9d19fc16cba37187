"""Noise-free sums of scores and labels, as a released table holds them."""

import numpy as np

from protocols.tasks.features import FloatArray
from protocols.tasks.score_table import ScoreTable
from server.learning.evaluate import score_sums
from server.learning.score_figures import ScoreSums
from tests.support.patients import dense

EDGES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
TABLE = ScoreTable(classes=1, groups=1, edges=EDGES, label_bins=2, placed=True)


def people(seed: int, patients: int = 40_000) -> tuple[FloatArray, FloatArray]:
    """Return scores of a rare outcome, and outcomes that are not quite as the scores say."""
    draw = np.random.default_rng(seed)
    logit = draw.normal(-3.0, 1.2, patients)
    score = 1 / (1 + np.exp(-logit))
    return score, (draw.random(patients) < 1 / (1 + np.exp(-1.2 * logit - 0.8))).astype(float)


def sums(score: FloatArray, label: FloatArray, noise: float = 1e-6) -> ScoreSums:
    nobody = np.zeros(len(score), dtype=np.int64)
    added = TABLE.contributions(score[:, None], label[:, None].astype(np.int64), nobody)
    (found,) = score_sums(TABLE, dense(added, TABLE.dimension).sum(axis=0), noise)
    return found
