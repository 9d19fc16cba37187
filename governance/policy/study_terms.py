"""The terms that decide what a study computes, in words, with every value exactly as it is signed.

A term that has no words here is shown under its own name, so that none is left out.
"""

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel

from governance.budget.composition import SUM
from governance.documents.study import Study
from governance.runtime.safe_text import named, quoted
from governance.runtime.wording import counted, exact
from protocols.numerics.mechanism import Mechanism, Rounding, Scope
from protocols.tasks import Condition, Feature, FeatureKind, Missing
from protocols.tasks.evaluation import Evaluation

TASK_WORDS = {
    "train/glm": "fit one model over all countries, by noisy sums of gradients",
    "train/mlp": "train one neural network over all countries, by noisy sums of gradients",
    "train/module": "train one installed network over all countries, by noisy sums of gradients",
    "stats/count": "count patients, with noise added to every count",
    "stats/histogram": "count patients by the values of one feature, with noise added",
}
WORDS = {
    "family": "kind of model",
    "target": "predicted feature",
    "inputs": "predicted from",
    "sampling_rate": "part of the patients in each round",
    "learning_rate": "step size",
    "average_last": "part of the rounds, at the end, whose models are averaged",
    "l2": "penalty on weights (l2)",
    "clip_norm": "largest contribution of a patient (clip norm)",
    "patients": "sums are divided by this number of patients",
    "patients_bound": "upper bound on the patients of all countries together",
    "held_out": "part of the patients on whom the model is tested",
    "share": "part of the privacy budget",
    "bin_edges": "edges of the bins",
    "prevalence": "public guess of the outcome's frequency",
    "smallest_cell": "cells below this number of patients are suppressed",
    "local": "local mode",
    "of": "counted by",
    "hidden": "widths of the hidden layers",
    "parts": "parts of the model",
    "seed": "seed of the initial model",
    "decay": "step size over the rounds",
    "by_country": "each country's own sum visible (by_country)",
}
IF_EMPTY = {
    "inputs": "every feature except the predicted one",
    "edges": "one group for each value",
    "bin_edges": "equal bins, and counts only",
}
"""What an empty list means, if that is not `none`."""
WHOSE_NOISE = {
    Scope.SHARED: "each country adds {noise} steps; the sum contains the noise of all",
    Scope.LOCAL: "each country adds {noise} steps, and relies on them alone",
    Scope.DERIVED: "no new noise: computed from values that are noisy already ({noise} is unused)",
}
ROUNDED = {
    Rounding.CONDITIONAL: "rounded at random",
    Rounding.INTEGER: "whole numbers already",
    Rounding.FACTORED: "factors rounded at random",
}


def task_terms(study: Study) -> Iterator[str]:
    """Yield each parameter of the task."""
    for name in type(study.task).model_fields:
        value = getattr(study.task, name)
        if isinstance(value, Evaluation):
            yield f"{name}: ({'; '.join(_evaluation_terms(value, study.accounting))})"
        elif name != "kind":
            yield _named(name, value)


def _evaluation_terms(evaluation: Evaluation, accounting: int) -> Iterator[str]:
    """Yield each parameter of an evaluation; its share only if the accounting uses it."""
    for name in type(evaluation).model_fields:
        if name == "bins":
            yield f"bins: {_bins(evaluation)}"
        elif name == "edges":
            yield _named("bin_edges", evaluation.edges)
        elif name != "share" or accounting == SUM:
            yield _named(name, getattr(evaluation, name))


def _bins(evaluation: Evaluation) -> str:
    """Return the number of bins that are used, and the stated one if edges replace it."""
    used, stated = len(evaluation.boundaries()) - 1, evaluation.bins
    return exact(used) if used == stated else f"{used}, by their edges ({stated} does not count)"


def _named(name: str, value: Any) -> str:
    return (
        f"{WORDS.get(name, name.replace('_', ' '))}: {_term(value) or IF_EMPTY.get(name, 'none')}"
    )


def _term(value: Any) -> str:
    """Return a value in words; empty if there is none."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return f"({'; '.join(_named(name, getattr(value, name)) for name in fields)})"
    if isinstance(value, Mapping):
        return ", ".join(f"{_term(name)} = {_term(value[name])}" for name in sorted(value))
    if isinstance(value, tuple | list):
        return ", ".join(map(_term, value))
    return "" if value is None else one_value(value)


def one_value(value: float | str) -> str:
    """Return a number exactly, a truth as yes or no, and text in quotation marks unless a name."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return named(str(value.value) if isinstance(value, Enum) else value)
    return exact(value)


def condition(limit: Condition) -> str:
    """Return a condition on patients."""
    if limit.one_of:
        return f"{limit.feature} is {' or '.join(map(one_value, limit.one_of))}"
    low = f" at least {exact(limit.at_least)}" if limit.at_least is not None else ""
    high = f" at most {exact(limit.at_most)}" if limit.at_most is not None else ""
    return f"{limit.feature}{low}{' and' if low and high else ''}{high}"


def feature(declared: Feature) -> str:
    """Return what a feature's values are, how they are coded, and what is done without one."""
    unit = f"; unit {quoted(declared.unit)}" if declared.unit else ""
    return f"{declared.name} ({_values(declared)}){unit}{_coded(declared)}; {_missing(declared)}"


def _values(declared: Feature) -> str:
    if declared.type is FeatureKind.CATEGORICAL:
        return ", ".join(map(quoted, declared.levels))
    if declared.type is FeatureKind.BOOLEAN:
        return "yes or no"
    low, high = declared.limits
    return f"{exact(low)} to {exact(high)}"


def _coded(declared: Feature) -> str:
    if declared.type is FeatureKind.CATEGORICAL:
        return ""
    middle, width = exact(declared.midpoint), exact(declared.unit_width)
    return f"; coded as (value - {middle}) / {width}"


def _missing(declared: Feature) -> str:
    if declared.missing is Missing.EXCLUDE:
        return "patients without it are left out"
    if declared.missing is Missing.INDICATOR:
        return "patients without it are marked as such"
    return f"patients without it count as {_term(declared.fill)}"


def release(mechanism: Mechanism) -> str:
    """Return one release of noisy values: how many, how bounded and rounded, with which noise."""
    norm, rate = exact(mechanism.clip_norm), mechanism.sampling_rate
    patients = "all patients" if rate == 1 else f"each patient with probability {exact(rate)}"
    noise = WHOSE_NOISE[mechanism.scope].format(noise=f"deviation {mechanism.noise_std}")
    return (
        f"{mechanism.phase}: {counted(mechanism.rounds, 'time')}, "
        f"{counted(mechanism.dimension, 'value')}, from {patients}, at most "
        f"{mechanism.patients_bound}; each contributes at most {norm}, "
        f"{ROUNDED[mechanism.rounding]}, in steps of 1/{mechanism.scale}; noise: {noise}"
    )
