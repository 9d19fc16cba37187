"""Selects the patients of a study, and the columns that the study uses.

Whether a study *fits* a source is decided from the data dictionary alone (`check_fit`), so no
record decides whether a country answers. Then the patients are selected from the records.
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
from keys.derive import derive_key, frame, labelled_hash
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
SPLIT_DIGEST_LABEL = "pratique/split/v1"
SPLIT_BYTES = 8


@dataclass(frozen=True)
class Cohort:
    """The patients of one study in this country, with the columns that the study declares."""

    features: tuple[Feature, ...]
    ids: tuple[str, ...]
    columns: Columns

    @property
    def patients(self) -> int:
        """The number of patients. It is never sent."""
        return len(self.ids)

    def where(self, chosen: BoolArray) -> Self:
        """Return the patients for whom `chosen` is true."""
        columns = {name: column[chosen] for name, column in self.columns.items()}
        ids = tuple(patient for patient, keep in zip(self.ids, chosen, strict=True) if keep)
        return type(self)(self.features, ids, columns)

    def between(self, start: int, stop: int) -> Self:
        """Return the patients with indices start ≤ index < stop."""
        columns = {name: column[start:stop] for name, column in self.columns.items()}
        return type(self)(self.features, self.ids[start:stop], columns)


def check_fit(
    recorded: Mapping[str, RecordedFeature], features: Sequence[Feature], used: Sequence[str]
) -> None:
    """Raise RecordFault if a feature that a study uses differs from what this country records."""
    wanted = by_name(features)
    for name in used:
        if name not in recorded:
            raise _misfit(name, f"the dictionary offers {', '.join(sorted(recorded))}")
        problem = _difference(recorded[name], wanted[name])
        if problem:
            raise _misfit(name, problem)


def _difference(recorded: RecordedFeature, wanted: Feature) -> str:
    if recorded.type is not wanted.type:
        return f"its type is {recorded.type} in the dictionary and {wanted.type} in the study"
    if recorded.unit != wanted.unit:
        return f"its unit is `{recorded.unit}` in the dictionary and `{wanted.unit}` in the study"
    unknown = [level for level in recorded.levels if level not in wanted.levels]
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

    `used` are the features that the task reads. Raises RecordFault if the study does not fit.
    """
    wanted = by_name(features)
    names = tuple(dict.fromkeys((*used, *(condition.feature for condition in conditions))))
    check_fit(records.features, features, names)
    columns = {name: _translated(records, wanted[name]) for name in names}
    selected = np.ones(records.patients, dtype=np.bool_)
    for name in used:
        if wanted[name].missing is Missing.EXCLUDE:
            selected &= ~np.isnan(columns[name])
    for condition in conditions:
        selected &= condition.met(wanted[condition.feature], columns[condition.feature])
    return Cohort(tuple(features), records.ids, columns).where(selected)


def _translated(records: Records, feature: Feature) -> FloatArray:
    column = records.columns[feature.name]
    if feature.type is not FeatureKind.CATEGORICAL:
        return column
    levels = records.features[feature.name].levels
    index = np.array([feature.levels.index(level) for level in levels], dtype=np.float64)
    known = ~np.isnan(column)
    translated = np.full_like(column, np.nan)
    translated[known] = index[column[known].astype(np.int64)]
    return translated


def held_out(secret: bytes, split: str, ids: Sequence[str], share: float) -> BoolArray:
    """Return which patients of a study are held out of training.

    A keyed hash of `split`, which says what the split is for, and of the patient id decides. So a
    patient stays on one side, and nobody without the node's secret can compute which.
    """
    key = _split_key(secret, split)
    limit = int(share * 2 ** (8 * SPLIT_BYTES))
    return np.array([_hash(key, patient) < limit for patient in ids], dtype=np.bool_)


def split_digest(secret: bytes, split: str, identification: str) -> str:
    """Return a digest of all that decides on which side a patient is, but for the patient's id.

    `identification` says how the records identify a patient.
    """
    key = _split_key(secret, split)
    return labelled_hash(SPLIT_DIGEST_LABEL, key, identification.encode()).hex()


def _split_key(secret: bytes, split: str) -> bytes:
    return derive_key(secret, SPLIT_LABEL, split.encode())


def _hash(key: bytes, patient: str) -> int:
    mac = hmac.new(key, frame(patient.encode()), hashlib.sha256).digest()
    return int.from_bytes(mac[:SPLIT_BYTES], "big")
