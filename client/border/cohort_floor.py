"""The cohort floor: a noisy count decides whether the cohort of a study is large enough.

The count is a release like any other: it is charged and logged first, and gets this country's own
noise, for which the comparison leaves room (`CohortThreshold`). It is made once for each cohort and
version of the records, and stored; if the agreement does not state its cost, once for each permit.
A permit pays for one count at most, so nobody can spend the budget by changing the records. Below
the floor, or if the permit has paid for a count of other records, the coordinator gets `declined`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy import Engine, insert, select

from client.border.admission import Admission
from client.border.charge import Charges
from client.border.failpoints import Failpoint, FailpointHook, no_failpoint
from client.border.recheck import PermissionRecheck
from client.records.store import RecordStore
from client.state.count_id import CountId
from client.state.decision_log import DecisionLog
from client.state.state_check import row_names
from client.state.tables import cohort_counts
from client.tasks.assignment import Assignment
from client.tasks.prepared import PreparedTasks
from governance.audit.events import EventKind, Outcome
from governance.runtime.database import transaction
from protocols.errors import ReasonCode, Refusal
from protocols.numerics.mechanism import Mechanism, Scope
from protocols.numerics.noise import NoiseSource
from protocols.tasks.schedule import COHORT_ERRORS, COHORT_FLOOR, CohortThreshold

RECORDS_CHANGED = "node/records-changed"
ENOUGH, TOO_FEW = "enough", "too-few"


@dataclass(frozen=True)
class _Count:
    """The decision of the count, and the version of the records that was counted."""

    data_version: str
    decision: str


class CohortFloor:
    """The cohort floor of one node."""

    def __init__(
        self,
        engine: Engine,
        *,
        charges: Charges,
        record_store: RecordStore,
        tasks: PreparedTasks,
        recheck: PermissionRecheck,
        decisions: DecisionLog,
        noise: NoiseSource,
        entropy: Callable[[int], bytes] = os.urandom,
        failpoint: FailpointHook = no_failpoint,
    ) -> None:
        self._engine, self._charges = engine, charges
        self._record_store, self._tasks = record_store, tasks
        self._noise, self._entropy = noise, entropy
        self._recheck, self._decisions, self._failpoint = recheck, decisions, failpoint

    def require(self, admission: Admission) -> str:
        """Return the data version if its cohort is large enough. Raises Refusal DECLINED if not."""
        version = self._record_store.records().version
        count = self._stored_count(_id(admission), version) or self._count(admission)
        if count.data_version != self._record_store.records().version:
            raise _records_changed(admission)
        if count.decision != ENOUGH:
            raise _too_few(admission)
        self._failpoint(Failpoint.FLOOR_PASSED)
        return count.data_version

    def _stored_count(self, count: CountId, version: str) -> _Count | None:
        """Return the count of this cohort and version, or else the one that the permit paid for."""
        columns = cohort_counts.c
        query = select(columns.data_version, columns.decision)
        # Databases of an earlier release may hold a count for each version of the records.
        newest = query.order_by(columns.created.desc()).limit(1)
        shared = newest.where(columns.cohort == count.cohort, columns.data_version == version)
        paid = newest.where(columns.permit == count.permit)
        with transaction(self._engine) as connection:
            row = connection.execute(shared).one_or_none() if count.cohort else None
            row = row or connection.execute(paid).one_or_none()
        return None if row is None else _Count(row.data_version, row.decision)

    def _count(self, admission: Admission) -> _Count:
        mechanism = _mechanism(admission)
        prepared = self._tasks.prepared(admission.study)
        self._failpoint(Failpoint.FLOOR_PREPARED)
        self._charge(admission, _id(admission).charged_as(prepared.version), mechanism)
        self._failpoint(Failpoint.FLOOR_CHARGED)
        noisy = self._noisy_count(prepared.assignment, mechanism)
        threshold = _threshold(admission, mechanism).smallest_count
        count = _Count(prepared.version, ENOUGH if noisy >= threshold else TOO_FEW)
        self._keep(admission, count)
        self._failpoint(Failpoint.FLOOR_KEPT)
        return count

    def _noisy_count(self, assignment: Assignment, mechanism: Mechanism) -> int:
        counted = assignment.lattice_sum(mechanism, b"", entropy=self._entropy)
        self._failpoint(Failpoint.FLOOR_COUNTED)
        noise = self._noise.draw(mechanism.noise_std, mechanism.dimension)
        self._failpoint(Failpoint.FLOOR_NOISED)
        return int(counted[0] + noise[0])

    def _charge(self, admission: Admission, name: str, mechanism: Mechanism) -> None:
        """Charge the count, unless another study of the cohort has charged it.

        Whether it is charged again depends on the records: DECLINED if it cannot be.
        """
        if self._charges.charged_by_another(admission, name):
            return
        try:
            self._charges.charge(
                admission,
                name,
                [mechanism],
                reserved=Failpoint.FLOOR_RESERVED,
                logged=Failpoint.FLOOR_CHARGE_LOGGED,
            )
        except Refusal as refusal:
            raise Refusal(
                ReasonCode.DECLINED,
                refusal.what,
                why=refusal.why,
                fix=refusal.fix,
                clause=refusal.clause,
            ) from None

    def _keep(self, admission: Admission, count: _Count) -> None:
        row = {
            "cohort": _id(admission).cohort or None,
            "permit": admission.permit.digest,
            "data_version": count.data_version,
            "decision": count.decision,
            "created": admission.documents.view.now,
        }
        columns = cohort_counts.c
        written = columns.permit == row["permit"], columns.data_version == row["data_version"]
        with transaction(self._engine) as connection:
            self._recheck.require(admission, connection)
            connection.execute(insert(cohort_counts).values(row))
            self._decisions.event(
                EventKind.COHORT_COUNTED,
                replace(admission.subject, body=None),
                outcome=Outcome.DONE,
                rows=row_names(connection, cohort_counts, *written),
                connection=connection,
            )
            self._failpoint(Failpoint.FLOOR_WRITTEN)


def _records_changed(admission: Admission) -> Refusal:
    return Refusal(
        ReasonCode.DECLINED,
        "The records have changed since the cohort was counted under this permit",
        why="a permit pays for one noisy count; a second count would cost the patients more "
        "privacy than was approved",
        fix="ask the officer to approve the study again with "
        f"`pratique-officer approve {admission.study.id} --reconsider`",
        clause=RECORDS_CHANGED,
    )


def _too_few(admission: Admission) -> Refusal:
    threshold = _threshold(admission, _mechanism(admission))
    return Refusal(
        ReasonCode.DECLINED,
        "The cohort of the study is too small on this node",
        why=f"the noisy count is below {threshold.smallest_cohort}, the smallest cohort of the "
        f"agreement, plus the margin for its noise; a cohort of {threshold.sure} or more fails in "
        f"{COHORT_ERRORS} cases at most",
        fix="do nothing; the same cohort is not counted again while the records are the same",
        clause="agreement/smallest-cohort",
    )


def _id(admission: Admission) -> CountId:
    return CountId.of(admission.study, admission.documents.view.agreement, admission.permit)


def _threshold(admission: Admission, mechanism: Mechanism) -> CohortThreshold:
    return CohortThreshold.of(admission.documents.view.agreement.smallest_cohort, mechanism)


def _mechanism(admission: Admission) -> Mechanism:
    for mechanism in admission.study.mechanisms:
        if mechanism.phase == COHORT_FLOOR and mechanism.scope is Scope.LOCAL:
            return mechanism
    raise Refusal(
        ReasonCode.POLICY,
        "The study has no noisy count for the cohort floor",
        why="without the count, the node cannot decide whether the cohort is large enough",
        fix="ask the coordinator to run `study check`, which adds it to the study's schedule",
        clause="agreement/smallest-cohort",
    )
