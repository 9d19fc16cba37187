"""What every source of records gives: one row per patient, as columns of numbers.

CSV is the first source; others (FHIR, OMOP) come behind the same interface.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from client.records.quality_report import QualityReport
from protocols.tasks.features import FeatureKind, FloatArray


@dataclass(frozen=True)
class RecordedFeature:
    """A feature as a country's own dictionary describes it."""

    name: str
    type: FeatureKind
    unit: str = ""
    bounds: tuple[float, float] | None = None
    levels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Records:
    """The records of one data version, opted-out patients left out. They never leave the node.

    `columns` hold float64 (patients,): a number, 0 or 1 for a boolean, the index into
    `RecordedFeature.levels` for a category; NaN is missing. `version` digests data and
    dictionary; not the opt-out list, so that honouring a refusal opens no new data version.
    """

    ids: tuple[str, ...]
    features: Mapping[str, RecordedFeature]
    columns: Mapping[str, FloatArray]
    version: str
    report: QualityReport

    @property
    def patients(self) -> int:
        """Number of patients."""
        return len(self.ids)


class DataSource(Protocol):
    """A place that records are read from."""

    def features(self) -> Mapping[str, RecordedFeature]:
        """Return what the source can offer, without reading a record. Raises RecordFault."""
        ...

    def read(self, opted_out: frozenset[str] = frozenset()) -> Records:
        """Return every patient but those opted out. Raises RecordFault, naming line and column."""
        ...
