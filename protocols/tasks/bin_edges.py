"""Proposes public edges for the bins of an evaluation: `study check` writes them into a draft.

They follow from the study's public constants alone, never from records. Scores of a yes/no model
lie about its prevalence. If that is 1 %, nearly all scores are in the first of ten equal bins, and
the bins say little about the model; bins of equal width on the logit scale distinguish them.
"""

import math
from collections.abc import Sequence

from protocols.tasks.evaluation import Evaluation
from protocols.tasks.features import Feature
from protocols.tasks.training import HALF, Family, Training

LOGIT_REACH = 2.4
"""Edges reach this far from the prevalence on the logit scale: 11 times the odds, and an 11th."""
SIGNIFICANT_DIGITS = 3
ERROR_EDGES = (0.02, 0.05, 0.1, 0.15, 0.25, 0.4)
"""Of the absolute error of a number, as a share of the target's range."""


def with_edges(task: Training, features: Sequence[Feature]) -> Training:
    """Return the task with edges for its evaluation, if it has one that declares none."""
    evaluation = task.evaluation
    if evaluation is None or evaluation.edges:
        return task
    edges = proposed_edges(task.family, task.classes(features), evaluation)
    with_them = evaluation.model_copy(update={"edges": edges})
    return task.model_copy(update={"evaluation": with_them})


def proposed_edges(family: Family, classes: int, evaluation: Evaluation) -> tuple[float, ...]:
    """Return edges for an evaluation of a model of this family.

    Each of several classes is taken to be as common as the others.
    """
    if family is Family.LINEAR:
        return ERROR_EDGES
    prevalence = 1 / classes if family is Family.MULTINOMIAL else evaluation.prevalence
    if prevalence is not None:
        return _logit_spaced(prevalence, evaluation.bins)
    return tuple(round(number / evaluation.bins, 6) for number in range(1, evaluation.bins))


def edges_sentence(task: Training) -> str:
    """Return what decides the bins of a draft's evaluation, without a full stop.

    Empty if there is no evaluation, or if the draft states the edges and nothing else about bins.
    """
    evaluation = task.evaluation
    if evaluation is None:
        return ""
    if evaluation.edges:
        unused = _unused(evaluation, "bins", "prevalence")
        return f"bins of the evaluation: by the draft's `edges`{unused}" if unused else ""
    if task.family is Family.LINEAR:
        unused = _unused(evaluation, "bins")
        return f"bins of the evaluation: absolute errors, as shares of the target's range{unused}"
    if task.family is Family.MULTINOMIAL:
        return "bins of the evaluation: spaced by odds, as if all levels were equally common"
    if evaluation.prevalence is not None:
        about = f"spaced by odds about the declared prevalence {evaluation.prevalence:g}"
        return f"bins of the evaluation: {about}"
    return (
        "bins of the evaluation: equal; if the outcome is rare, declare `prevalence` under "
        "`evaluation`, a public guess, or most scores fall into the first bin"
    )


def _unused(evaluation: Evaluation, *names: str) -> str:
    """Return which of these fields a draft states, as a part of a sentence: they do not count."""
    stated = [f"`{name}`" for name in names if name in evaluation.model_fields_set]
    verb = "does" if len(stated) == 1 else "do"
    return f"; {' and '.join(stated)} {verb} not count" if stated else ""


def _logit_spaced(prevalence: float, bins: int) -> tuple[float, ...]:
    """Return `bins` - 1 edges about the prevalence, and one half, which accuracy needs.

    An edge that is near one half becomes one half.
    """
    centre, width = math.log(prevalence / (1 - prevalence)), 2 * LOGIT_REACH / (bins - 2)
    logits = [centre - LOGIT_REACH + number * width for number in range(bins - 1)]
    others = [logit for logit in logits if abs(logit) > width / 2]
    return tuple(sorted({HALF, *(_rounded(1 / (1 + math.exp(-logit))) for logit in others)}))


def _rounded(edge: float) -> float:
    """Round to three digits of the smaller of the edge and what is left to one."""
    small = min(edge, 1 - edge)
    digits = SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(small))
    return round(edge, digits)
