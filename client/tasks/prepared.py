"""Prepares the task of each study on the node's records, once for each version of the records.

For patients without ids it is prepared for each run: see `_split_label`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from client.records.cohort import split_digest
from client.records.own_country import with_own_country
from client.records.source import Records
from client.records.store import RecordStore
from client.tasks.assignment import Assignment
from client.tasks.module_registry import registered
from governance.documents.study import Study

MAX_ASSIGNMENTS = 8
"""How many prepared tasks are kept; the oldest are dropped."""


@dataclass(frozen=True)
class Prepared:
    """The task of a study, prepared on one version of the records.

    `split` is a digest of what decides which patients train and which are held out.
    """

    version: str
    assignment: Assignment
    split: str


class PreparedTasks:
    """The latest prepared tasks of one node. Thread-safe."""

    def __init__(
        self,
        record_store: RecordStore,
        modules: Sequence[str],
        split_secret: bytes,
        *,
        country: str,
    ) -> None:
        self._record_store, self._secret, self._country = record_store, split_secret, country
        self._modules = registered(modules)
        self._lock = Lock()
        self._records: Records | None = None
        self._prepared: dict[tuple[str, str], Prepared] = {}

    def prepared(self, study: Study, run: str = "") -> Prepared:
        """Return the task of a study on this node's cohort, with the version of the records.

        For a sum over a part of the cohort, `run` is the run; everybody is the same in all runs.
        Both come from one reading of the records, even if the records are read again meanwhile.
        So the version is always that of the records behind the task. Raises RecordFault.
        """
        with self._lock:
            records = self._record_store.records()
            if records is not self._records:
                self._prepared.clear()
                self._records = records
            key = study.digest, _split_label(study, records, run)
            if key not in self._prepared:
                self._prepared[key] = self._prepare(study, records, key[1])
                for old in list(self._prepared)[:-MAX_ASSIGNMENTS]:
                    del self._prepared[old]
            return self._prepared[key]

    def split(self, study: Study, run: str) -> str:
        """Return a digest of what decides which patients train in a run. Raises RecordFault."""
        records = self._record_store.records()
        return self._split_digest(records, _split_label(study, records, run))

    def forget_former_records(self) -> None:
        """Drop tasks of records that were read again since; opted-out patients may be in them."""
        with self._lock:
            if self._records is not self._record_store.latest:
                self._prepared.clear()
                self._records = None

    def _prepare(self, study: Study, records: Records, split: str) -> Prepared:
        assignment = Assignment.prepare(
            study.task,
            study.features,
            with_own_country(records, self._country) if study.task.by_country else records,
            conditions=study.population.where,
            split_secret=self._secret,
            split=split,
            modules=self._modules,
        )
        return Prepared(records.version, assignment, self._split_digest(records, split))

    def _split_digest(self, records: Records, split: str) -> str:
        return split_digest(self._secret, split, records.identification)


def _split_label(study: Study, records: Records, run: str) -> str:
    """Return what the key of the split into training and held-out patients is derived for.

    It is the study, and for row numbers also the run and the version of the records: the proof in
    `governance.budget.composition` needs another random split for each.
    """
    return f"{study.digest} {run} {records.version}" if records.numbered else study.digest
