"""Suppresses the figures of a country that is not in the sum: its part of the sum is noise alone.

Without this, a table by country could show the noise as a count of patients.
"""

from collections.abc import Collection, Mapping
from typing import Any

from protocols.tasks import Task, Training
from protocols.tasks.by_country import COUNTRY

SUPPRESSED: Mapping[str, Any] = {"count": None, "low": None, "high": None, "suppressed": True}


def without_absent(
    task: Task, findings: dict[str, Any], countries: Collection[str]
) -> dict[str, Any]:
    """Return a table or an evaluation, as JSON, without the figures of other countries.

    `countries` are those in the sum. What is not by country stays as it is.
    """
    if not task.by_country or not findings:
        return findings
    if not isinstance(task, Training):
        cells = [_cell(findings["groupings"], cell, countries) for cell in findings["cells"]]
        return {**findings, "cells": cells}
    subgroup = task.evaluation.subgroup if task.evaluation else None
    if subgroup is None or subgroup.feature != COUNTRY:
        return findings
    return {**findings, "subgroups": [_group(each, countries) for each in findings["subgroups"]]}


def _cell(groupings: list[str], cell: dict[str, Any], countries: Collection[str]) -> dict[str, Any]:
    labels = dict(zip(groupings, cell["labels"], strict=True))
    absent = COUNTRY in labels and labels[COUNTRY] not in countries
    return {**cell, **SUPPRESSED} if absent else cell


def _group(group: dict[str, Any], countries: Collection[str]) -> dict[str, Any]:
    if group["group"] in countries:
        return group
    return {name: value if name == "group" else None for name, value in group.items()}
