"""Holds the node's records in memory.

They are read at the start, and again when a file changes. No message waits for this, so the time of
a reply does not depend on the reading.

Records are loaded whole or not at all, and one bad record decides no reply: if the content of the
file cannot be used, the node goes on with the records that it loaded last, without those patients
who have opted out since. What can be judged without a record stops every reply: a missing file, an
unreadable dictionary or opt-out list.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from client.errors import ContentFault, RecordFault
from client.records.cohort import check_fit
from client.records.csv_source import CsvSource
from client.records.dictionary import read_dictionary
from client.records.opt_outs import read_opt_outs
from client.records.source import DataSource, Records
from client.settings import NodeSettings
from governance.documents.study import Study
from protocols.errors import ReasonCode, Refusal

Stamp = tuple[tuple[int, int, int] | None, ...]

_log = logging.getLogger("pratique.records")


@dataclass(frozen=True)
class _Served:
    """What is answered from; None if nothing may be answered."""

    source: DataSource | None = None
    records: Records | None = None
    fault: RecordFault | None = None


class RecordStore:
    """The records of one node. Thread-safe: a reading replaces all of them at its end."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._reading = Lock()
        self._stamp: Stamp | None = None
        self._served = _Served()
        self._loaded: tuple[DataSource, Records] | None = None
        self.readings = 0
        """How often the records were read."""

    def refresh(self) -> None:
        """Read the files again if one of them has changed."""
        stamp = self._stamps()
        with self._reading:
            if stamp == self._stamp:
                return
            before, self._served, self._stamp = self._served, self._read(), stamp
        self._log_change(before, self._served)

    def _log_change(self, before: _Served, now: _Served) -> None:
        """Log whether there is a fault, without its text, which may quote a record."""
        if now.fault:
            goes_on = "studies continue on the records loaded before"
            says = "nothing is answered" if now.records is None else goes_on
            _log.error("records cannot be read", extra={"what": f"{says}; see doctor"})
        elif before.fault:
            _log.info("records can be read again")

    @property
    def fault(self) -> RecordFault | None:
        """The fault of the files as they are now; None if they could be read."""
        return self._served.fault

    @property
    def loaded(self) -> bool:
        """Whether records have been loaded whole since the start."""
        return self._loaded is not None

    @property
    def described(self) -> bool:
        """Return whether a dictionary could be read, so that `require_fit` can decide."""
        return self._served.source is not None

    @property
    def version(self) -> str | None:
        """The version of the records; None if nothing may be answered."""
        return None if self.latest is None else self.latest.version

    @property
    def latest(self) -> Records | None:
        """The records that were loaded last; None if nothing may be answered."""
        return self._served.records

    def records(self) -> Records:
        """Return the records. Raises RecordFault if nothing may be answered."""
        served = self._served
        if served.records is None:
            raise served.fault or RecordFault("The records have not been read yet")
        return served.records

    def require_fit(self, study: Study) -> None:
        """Raise RecordFault unless the dictionary offers all features that the study uses."""
        served = self._served
        if served.source is None:
            raise served.fault or RecordFault("The data dictionary has not been read yet")
        check_fit(served.source.features(), study.features, study.features_used)

    def _source(self) -> DataSource:
        return CsvSource(self._settings.data, read_dictionary(self._settings.dictionary))

    def _read(self) -> _Served:
        self.readings += 1
        try:
            source = self._source()
        except RecordFault as fault:
            return _Served(fault=fault)
        try:
            opted_out = self._opted_out()
            return self._load(source, opted_out)
        except RecordFault as fault:
            return _Served(source, fault=fault)

    def _load(self, source: DataSource, opted_out: Collection[str]) -> _Served:
        try:
            records = source.read(opted_out)
        except ContentFault as fault:
            if self._loaded is None:
                raise
            source, records = self._loaded
            records = source.without(records, opted_out)
            self._loaded = source, records
            return _Served(source, records, fault)
        self._loaded = source, records
        return _Served(source, records)

    def _opted_out(self) -> Mapping[str, int]:
        path = self._settings.opt_out
        return {} if path is None else read_opt_outs(path)

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
