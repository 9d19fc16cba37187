"""Holds the node's records in memory.

They are read at the start, and again when a file changes. No message waits for this, so the time of
a reply does not depend on the reading.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from threading import Lock

from client.errors import RecordFault
from client.records.cohort import check_fit
from client.records.csv_source import CsvSource
from client.records.dictionary import read_dictionary
from client.records.opt_outs import read_opt_outs
from client.records.source import DataSource, RecordedFeature, Records
from client.settings import NodeSettings
from governance.documents.study import Study
from protocols.errors import ReasonCode, Refusal

Stamp = tuple[tuple[int, int, int] | None, ...]

_log = logging.getLogger("pratique.records")


class RecordStore:
    """The records of one node. Thread-safe."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._stamp: Stamp | None = None
        self._features: Mapping[str, RecordedFeature] | None = None
        self._records: Records | None = None
        self._fault: RecordFault | None = None
        self.readings = 0
        """How often the records were read."""

    def refresh(self) -> None:
        """Read the files again if one of them has changed."""
        stamp = self._stamps()
        with self._lock:
            if stamp == self._stamp:
                return
            self._read()
            self._stamp = stamp

    @property
    def fault(self) -> RecordFault | None:
        """The fault because of which there are no records; None if there are."""
        return self._fault

    @property
    def described(self) -> bool:
        """Return whether the dictionary could be read, so that `require_fit` can decide."""
        return self._features is not None

    @property
    def version(self) -> str | None:
        """The version of the records; None if they cannot be read."""
        return None if self._records is None else self._records.version

    @property
    def latest(self) -> Records | None:
        """The records as they were last read; None if they cannot be read."""
        return self._records

    def records(self) -> Records:
        """Return the records. Raises RecordFault if they cannot be read."""
        with self._lock:
            if self._records is None:
                raise self._fault or RecordFault("The records have not been read yet")
            return self._records

    def require_fit(self, study: Study) -> None:
        """Raise RecordFault unless the dictionary offers all features that the study uses."""
        with self._lock:
            if self._features is None:
                raise self._fault or RecordFault("The data dictionary has not been read yet")
            check_fit(self._features, study.features, study.features_used)

    def _source(self) -> DataSource:
        return CsvSource(self._settings.data, read_dictionary(self._settings.dictionary))

    def _read(self) -> None:
        self.readings += 1
        self._records = self._features = None
        try:
            source = self._source()
            self._features = source.features()
            self._records = source.read(self._opted_out())
            self._fault = None
        except RecordFault as fault:
            self._fault = fault
            _log.error("records cannot be read", extra={"what": "see `pratique-node doctor`"})

    def _opted_out(self) -> frozenset[str]:
        path = self._settings.opt_out
        return frozenset() if path is None else read_opt_outs(path)

    def _stamps(self) -> Stamp:
        paths = (self._settings.data, self._settings.dictionary, self._settings.opt_out)
        return tuple(None if path is None else _stamp(path) for path in paths)


def records_unusable() -> Refusal:
    """Return a refusal without its cause, which only `pratique-node doctor` shows."""
    return Refusal(
        ReasonCode.DECLINED,
        "The records cannot be used",
        why="their file, dictionary or list of opted-out patients cannot be read",
        fix="run `pratique-node doctor`, which shows the cause",
    )


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
