"""Adds the feature `country` to the draft of a study with `by_country`.

Its levels are the study's countries. A draft that is not in the form of a study stays as it is: the
reading reports what is wrong with it.
"""

from collections.abc import Mapping
from typing import Any

from protocols.tasks.by_country import COUNTRY

Fields = Mapping[str, Any]


def with_country(values: Fields) -> dict[str, Any]:
    """Return a draft's fields with the feature, and its use in the task, unless they are there."""
    task, countries, features = values.get("task"), values.get("countries"), values.get("features")
    declared = [] if features is None else features
    if not (isinstance(task, dict) and _are_names(countries) and isinstance(declared, list)):
        return dict(values)
    if task.get("by_country") is not True:
        return dict(values)
    if not any(_names_country(feature, "name") for feature in declared):
        levels = sorted(set(_items(countries)))
        declared = [*declared, {"name": COUNTRY, "type": "categorical", "levels": levels}]
    return {**values, "features": declared, "task": _with_use(task)}


def _with_use(task: Fields) -> dict[str, Any]:
    """Return the task with the country among its inputs, or as its first stratum."""
    used = {**task}
    if str(task.get("kind")).startswith("train/"):
        inputs = task.get("inputs")
        if isinstance(inputs, list) and inputs and not _uses_country(task):
            used["inputs"] = [*inputs, COUNTRY]
        return used
    strata = task.get("strata", [])
    if isinstance(strata, list) and not _uses_country(task):
        used["strata"] = [{"feature": COUNTRY}, *strata]
    return used


def _uses_country(task: Fields) -> bool:
    evaluation = task.get("evaluation")
    groupings = [task.get("of"), *_items(task.get("strata"))]
    if isinstance(evaluation, dict):
        groupings.append(evaluation.get("subgroup"))
    in_groups = any(_names_country(grouping, "feature") for grouping in groupings)
    return in_groups or COUNTRY in _items(task.get("inputs"))


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _names_country(entry: Any, field: str) -> bool:
    return isinstance(entry, dict) and entry.get(field) == COUNTRY


def _are_names(countries: Any) -> bool:
    return isinstance(countries, list) and all(isinstance(name, str) for name in countries)
