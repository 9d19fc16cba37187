"""The cohort floor: a noisy count decides whether the cohort of a study is large enough.

The count is a release like any other: it is charged and logged first, and gets this country's own
noise. It is made once for each permit and then stored, because one count for each version of the
records would cost more than the study states. Below the floor, or after a change of the records,
the coordinator gets `declined`.
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
from client.state.count_id import count_id
from client.state.decision_log import DecisionLog
from client.state.state_check import row_names
from client.state.tables import cohort_counts
from client.tasks.assignment import Assignment
from client.tasks.prepared import PreparedTasks
from governance.audit.events import EventKind, Outcome
from governance.documents.permit import Permit
from governance.runtime.database import transaction
from protocols.errors import ReasonCode, Refusal
from protocols.numerics.mechanism import Mechanism, Scope
from protocols.numerics.noise import NoiseSource
from protocols.tasks.schedule import COHORT_FLOOR

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
        count = self._stored_count(admission.permit) or self._count(admission)
        if count.data_version != self._record_store.records().version:
            raise _records_changed(admission)
        if count.decision != ENOUGH:
            raise _too_few(admission)
        self._failpoint(Failpoint.FLOOR_PASSED)
        return count.data_version

    def _stored_count(self, permit: Permit) -> _Count | None:
        columns = cohort_counts.c
        query = select(columns.data_version, columns.decision).where(
            columns.permit == permit.digest
        )
        # Databases of an earlier release may hold a count for each version of the records.
        latest = query.order_by(columns.created.desc()).limit(1)
        with transaction(self._engine) as connection:
            row = connection.execute(latest).one_or_none()
        return None if row is None else _Count(row.data_version, row.decision)

    def _count(self, admission: Admission) -> _Count:
        mechanism = _mechanism(admission)
        prepared = self._tasks.prepared(admission.study)
        self._failpoint(Failpoint.FLOOR_PREPARED)
        self._charge(admission, mechanism)
        self._failpoint(Failpoint.FLOOR_CHARGED)
        noisy = self._noisy_count(prepared.assignment, mechanism)
        smallest = admission.documents.view.agreement.smallest_cohort * mechanism.scale
        count = _Count(prepared.version, ENOUGH if noisy >= smallest else TOO_FEW)
        self._keep(admission, count)
        self._failpoint(Failpoint.FLOOR_KEPT)
        return count

    def _noisy_count(self, assignment: Assignment, mechanism: Mechanism) -> int:
        counted = assignment.lattice_sum(mechanism, b"", entropy=self._entropy)
        self._failpoint(Failpoint.FLOOR_COUNTED)
        noise = self._noise.draw(mechanism.noise_std, mechanism.dimension)
        self._failpoint(Failpoint.FLOOR_NOISED)
        return int(counted[0] + noise[0])

    def _charge(self, admission: Admission, mechanism: Mechanism) -> None:
        self._charges.charge(
            admission,
            count_id(admission.permit),
            [mechanism],
            reserved=Failpoint.FLOOR_RESERVED,
            logged=Failpoint.FLOOR_CHARGE_LOGGED,
        )

    def _keep(self, admission: Admission, count: _Count) -> None:
        row = {
            "permit": admission.permit.digest,
            "data_version": count.data_version,
            "decision": count.decision,
            "created": admission.documents.view.now,
        }
        with transaction(self._engine) as connection:
            self._recheck.require(admission, connection)
            connection.execute(insert(cohort_counts).values(row))
            self._decisions.event(
                EventKind.COHORT_COUNTED,
                replace(admission.subject, body=None),
                outcome=Outcome.DONE,
                rows=row_names(
                    connection, cohort_counts, cohort_counts.c.permit == admission.permit.digest
                ),
                connection=connection,
            )
            self._failpoint(Failpoint.FLOOR_WRITTEN)


def _records_changed(admission: Admission) -> Refusal:
    return Refusal(
        ReasonCode.DECLINED,
        "The records have changed since the cohort was counted under this permit",
        why="a permit pays for one noisy count; a second count would cost the patients more "
        "privacy than the study states",
        fix="ask the officer to approve the study again with "
        f"`pratique-officer approve {admission.study.id} --reconsider`",
        clause=RECORDS_CHANGED,
    )


def _too_few(admission: Admission) -> Refusal:
    return Refusal(
        ReasonCode.DECLINED,
        "The cohort of the study is too small on this node",
        why=f"the noisy count did not reach {admission.documents.view.agreement.smallest_cohort}, "
        "the smallest cohort of the agreement",
        fix="do nothing; the count is made once for each permit",
        clause="agreement/smallest-cohort",
    )


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
