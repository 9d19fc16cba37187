"""Scores a CSV file with a released model, in the study's encoding; nothing is fitted to the file.

The file has a header with the study's feature names. Values are written in the study's terms:
numbers in its units, level names, true/false. An empty value or `?` is missing.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keys.errors import reason_of
from protocols.tasks import Family, Feature, Missing, Predictor, Task
from protocols.tasks.features import FloatArray, parse_value
from server.errors import CoordinatorFault

Fields = Mapping[str, str]
Rows = Sequence[tuple[int, Fields]]
"""For each row, its line number and its texts by feature."""


def predict_file(
    task: Task, features: Sequence[Feature], weights: FloatArray, source: Path
) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return the header and rows of predictions, one row for each row of `source`, in order.

    A yes/no target gives its probability; a category gives the top level and a probability for
    each level; a number gives the prediction in its unit. A patient whom the study would exclude
    for a missing value gets empty cells. Raises CoordinatorFault with line and column, or if the
    model cannot be applied here.
    """
    if not isinstance(task, Predictor):
        raise _not_applicable(task)
    inputs = task.input_features(features)
    columns = _columns(inputs, _read(source, inputs), source)
    complete = _complete(inputs, columns)
    scored = {name: column[complete] for name, column in columns.items()}
    predicted = task.predict(features, weights, task.rows(features, scored))
    target = task.target_feature(features)
    predictions = iter(_rows(task.family, target, predicted))
    header = _header(task.family, target)
    empty = [""] * len(header)
    return header, [next(predictions) if scorable else empty for scorable in complete]


def _header(family: Family, target: Feature) -> tuple[str, ...]:
    if family is not Family.MULTINOMIAL:
        return (target.name,)
    return (target.name, *(f"{target.name}={level}" for level in target.levels))


def _rows(family: Family, target: Feature, predicted: FloatArray) -> list[list[str]]:
    if family is Family.LINEAR:
        predicted = target.unscaled(predicted)
    texts = [[f"{value:.6g}" for value in row] for row in predicted]
    if family is not Family.MULTINOMIAL:
        return texts
    top = predicted.argmax(axis=1)
    return [[target.levels[index], *row] for index, row in zip(top, texts, strict=True)]


def _complete(inputs: Sequence[Feature], columns: Mapping[str, FloatArray]) -> Any:
    required = [columns[f.name] for f in inputs if f.missing is Missing.EXCLUDE]
    count = len(next(iter(columns.values())))
    absent = [np.isnan(column) for column in required]
    return ~np.any(absent, axis=0) if absent else np.ones(count, dtype=np.bool_)


def _columns(inputs: Sequence[Feature], rows: Rows, source: Path) -> dict[str, FloatArray]:
    return {
        f.name: np.array([_value(f, line, fields, source) for line, fields in rows], dtype=float)
        for f in inputs
    }


def _value(feature: Feature, line: int, fields: Fields, source: Path) -> float:
    try:
        return parse_value(feature, fields[feature.name])
    except ValueError as error:
        raise CoordinatorFault(
            f"The file {source}, line {line}, column `{feature.name}`: the value cannot be read",
            why=str(error),
            fix="write the value in the study's terms, or leave it empty if it is missing",
        ) from error


def _read(source: Path, inputs: Sequence[Feature]) -> Rows:
    try:
        with source.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle, strict=True)
            return _aligned(reader, _column_indices(next(reader, []), inputs, source), source)
    except OSError as error:
        raise _unusable(source, reason_of(error)) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise _unusable(source, "it is not UTF-8 text in CSV form") from error


def _column_indices(header: list[str], inputs: Sequence[Feature], source: Path) -> dict[str, int]:
    absent = [f.name for f in inputs if header.count(f.name) != 1]
    if absent:
        raise _unusable(
            source, f"its header must contain each of these names once: {', '.join(absent)}"
        )
    return {f.name: header.index(f.name) for f in inputs}


def _aligned(reader: Any, columns: Mapping[str, int], source: Path) -> Rows:
    width, rows = max(columns.values()) + 1, []
    for fields in reader:
        if fields and len(fields) < width:
            raise _unusable(source, f"line {reader.line_num} has too few columns")
        if fields:
            rows.append((reader.line_num, {name: fields[index] for name, index in columns.items()}))
    return rows


def _unusable(source: Path, why: str) -> CoordinatorFault:
    return CoordinatorFault(
        f"The file {source} cannot be scored",
        why=why,
        fix="give a CSV file with a header that names the study's input features",
    )


def _not_applicable(task: Task) -> CoordinatorFault:
    return CoordinatorFault(
        f"A model of `{task.kind}` cannot be applied here",
        why="only its module can do that, and modules are installed on nodes only",
        fix="load model.safetensors into the module that the study names; the tensors have the "
        "names of its parameters",
    )
