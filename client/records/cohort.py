"""Which patients a study counts, and what of them it sees: the population, column by column.

Whether a study *fits* a source is decided from its dictionary alone (`check_fit`), so nothing in
a record decides whether a country answers. Fitting patients are then selected from the records.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from client.errors import RecordFault
from client.records.source import RecordedFeature, Records
from keys.derive import derive_key, frame
from protocols.tasks.features import (
    Columns,
    Condition,
    Feature,
    FeatureKind,
    FloatArray,
    Missing,
    by_name,
)

BoolArray = NDArray[np.bool_]
SPLIT_LABEL = "pratique/held-out/v1"
SPLIT_BYTES = 8


@dataclass(frozen=True)
class Cohort:
    """Patients of one study in this country, with the columns that the study declares."""

    features: tuple[Feature, ...]
    ids: tuple[str, ...]
    columns: Columns

    @property
    def patients(self) -> int:
        """Number of patients. Local: it is never sent."""
        return len(self.ids)

    def where(self, chosen: BoolArray) -> Self:
        """Return the patients that are chosen."""
        columns = {name: column[chosen] for name, column in self.columns.items()}
        ids = tuple(one for one, keep in zip(self.ids, chosen, strict=True) if keep)
        return type(self)(self.features, ids, columns)

    def between(self, start: int, stop: int) -> Self:
        """Return the patients from `start` to before `stop`, in their order."""
        columns = {name: column[start:stop] for name, column in self.columns.items()}
        return type(self)(self.features, self.ids[start:stop], columns)


def check_fit(
    recorded: Mapping[str, RecordedFeature], features: Sequence[Feature], used: Sequence[str]
) -> None:
    """Raise RecordFault where a feature that a study uses is not what this country records."""
    wanted = by_name(features)
    for name in used:
        if name not in recorded:
            raise _misfit(name, f"it offers {', '.join(sorted(recorded))}")
        problem = _difference(recorded[name], wanted[name])
        if problem:
            raise _misfit(name, problem)


def _difference(ours: RecordedFeature, theirs: Feature) -> str:
    if ours.type is not theirs.type:
        return f"it is {ours.type} here and {theirs.type} in the study"
    if ours.unit != theirs.unit:
        return f"its unit is `{ours.unit}` here and `{theirs.unit}` in the study"
    unknown = [level for level in ours.levels if level not in theirs.levels]
    return f"the study has no level {', '.join(unknown)}" if unknown else ""


def _misfit(name: str, why: str) -> RecordFault:
    return RecordFault(
        f"The data dictionary does not offer `{name}` as the study needs it",
        why=why,
        fix="correct the dictionary, or ask the coordinator to correct the study",
    )


def select(
    records: Records,
    features: Sequence[Feature],
    used: Sequence[str],
    conditions: Sequence[Condition] = (),
) -> Cohort:
    """Return the patients who meet the conditions and lack nothing that the study requires.

    `used` are the features that the task reads. Raises RecordFault where the study does not fit.
    """
    wanted = by_name(features)
    names = tuple(dict.fromkeys((*used, *(condition.feature for condition in conditions))))
    check_fit(records.features, features, names)
    columns = {name: _translated(records, wanted[name]) for name in names}
    chosen = np.ones(records.patients, dtype=np.bool_)
    for name in used:
        if wanted[name].missing is Missing.EXCLUDE:
            chosen &= ~np.isnan(columns[name])
    for condition in conditions:
        chosen &= condition.met(wanted[condition.feature], columns[condition.feature])
    return Cohort(tuple(features), records.ids, columns).where(chosen)


def _translated(records: Records, feature: Feature) -> FloatArray:
    column = records.columns[feature.name]
    if feature.type is not FeatureKind.CATEGORICAL:
        return column
    ours = records.features[feature.name].levels
    index = np.array([feature.levels.index(level) for level in ours], dtype=np.float64)
    known = ~np.isnan(column)
    translated = np.full_like(column, np.nan)
    translated[known] = index[column[known].astype(np.int64)]
    return translated


def held_out(secret: bytes, study: str, ids: Sequence[str], share: float) -> BoolArray:
    """Return which patients of a study are kept from training.

    A keyed hash of study digest and patient id decides, so a patient stays on one side for the
    whole study and nobody without the node's secret can tell which.
    """
    key = derive_key(secret, SPLIT_LABEL, study.encode())
    limit = int(share * 2 ** (8 * SPLIT_BYTES))
    return np.array([_draw(key, one) < limit for one in ids], dtype=np.bool_)


def _draw(key: bytes, patient: str) -> int:
    mac = hmac.new(key, frame(patient.encode()), hashlib.sha256).digest()
    return int.from_bytes(mac[:SPLIT_BYTES], "big")
