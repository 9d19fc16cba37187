"""The interface of every source of records: one row per patient, as columns of numbers.

CSV is the first source; others (FHIR, OMOP) will have the same interface.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from client.records.quality_report import QualityReport
from protocols.tasks.features import FeatureKind, FloatArray


@dataclass(frozen=True)
class RecordedFeature:
    """A feature as the country's data dictionary describes it."""

    name: str
    type: FeatureKind
    unit: str = ""
    bounds: tuple[float, float] | None = None
    levels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Records:
    """The records of one data version, without opted-out patients. They never leave the node.

    `columns` contain float64 (patients,): a number, 0 or 1 for a boolean, the index into
    `RecordedFeature.levels` for a category; NaN means missing. `version` is a digest of data and
    dictionary, but not of the opt-out list, so that an opt-out does not make a new data version.
    `identification` says by what and by which rules the source identifies a patient. If the records
    are `numbered`, ids are row numbers: they mean nothing in another version.
    """

    ids: tuple[str, ...]
    features: Mapping[str, RecordedFeature]
    columns: Mapping[str, FloatArray]
    version: str
    report: QualityReport
    numbered: bool = False
    identification: str = ""

    @property
    def patients(self) -> int:
        """The number of patients."""
        return len(self.ids)


class DataSource(Protocol):
    """A source that records are read from."""

    def features(self) -> Mapping[str, RecordedFeature]:
        """Return the features of the source, without reading a record. Raises RecordFault."""
        ...

    def read(self, opted_out: Collection[str] = ()) -> Records:
        """Return all patients except those opted out.

        Raises ContentFault with line and column, or RecordFault if there is no file to read.
        """
        ...

    def without(self, records: Records, opted_out: Collection[str]) -> Records:
        """Return records of this source without further patients who opted out."""
        ...
