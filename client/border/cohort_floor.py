"""The cohort floor: whether a study's eligible cohort is large enough, told by a noisy count.

The count is a release like any other: charged and logged first, with this country's own noise, made
once for each permit and kept: a count for every version of the records would cost more than the
study states. Below the floor, or once the records have changed, the coordinator reads `declined`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, insert, select

from client.border.admission import Admission
from client.border.failpoints import Failpoint, FailpointHook, no_failpoint
from client.border.recheck import PermissionRecheck
from client.records.store import RecordStore
from client.state.count_id import count_id
from client.state.decision_log import DecisionLog
from client.state.tables import cohort_counts
from client.tasks.assignment import Assignment
from client.tasks.prepared import PreparedTasks
from governance.audit.events import EventKind
from governance.budget.ledger import Ledger
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
    """What the count decided, and of which version of the records."""

    data_version: str
    decision: str


class CohortFloor:
    """The floor of one node."""

    def __init__(
        self,
        engine: Engine,
        *,
        ledger: Ledger,
        decisions: DecisionLog,
        record_store: RecordStore,
        tasks: PreparedTasks,
        recheck: PermissionRecheck,
        noise: NoiseSource,
        entropy: Callable[[int], bytes] = os.urandom,
        failpoint: FailpointHook = no_failpoint,
    ) -> None:
        self._engine, self._ledger, self._decisions = engine, ledger, decisions
        self._record_store, self._tasks = record_store, tasks
        self._noise, self._entropy = noise, entropy
        self._recheck, self._failpoint = recheck, failpoint

    def require(self, admission: Admission) -> str:
        """Return the data version whose cohort is large enough. Raises Refusal DECLINED."""
        count = self._made(admission.permit) or self._count(admission)
        if count.data_version != self._record_store.records().version:
            raise _records_changed(admission)
        if count.decision != ENOUGH:
            raise _too_few(admission)
        self._failpoint(Failpoint.FLOOR_PASSED)
        return count.data_version

    def _made(self, permit: Permit) -> _Count | None:
        columns = cohort_counts.c
        query = select(columns.data_version, columns.decision).where(
            columns.permit == permit.digest
        )
        # Databases of an earlier release may hold one for each version of the records.
        latest = query.order_by(columns.created.desc()).limit(1)
        with transaction(self._engine) as connection:
            found = connection.execute(latest).one_or_none()
        return None if found is None else _Count(found.data_version, found.decision)

    def _count(self, admission: Admission) -> _Count:
        mechanism = _mechanism(admission)
        prepared = self._tasks.prepared(admission.study)
        self._failpoint(Failpoint.FLOOR_PREPARED)
        self._charge(admission, mechanism)
        self._failpoint(Failpoint.FLOOR_CHARGED)
        noisy = self._noisy(prepared.assignment, mechanism)
        smallest = admission.held.view.agreement.smallest_cohort * mechanism.scale
        made = _Count(prepared.version, ENOUGH if noisy >= smallest else TOO_FEW)
        self._keep(admission, made)
        self._failpoint(Failpoint.FLOOR_KEPT)
        return made

    def _noisy(self, assignment: Assignment, mechanism: Mechanism) -> int:
        count = assignment.lattice_sum(mechanism, b"", entropy=self._entropy)
        self._failpoint(Failpoint.FLOOR_COUNTED)
        noise = self._noise.draw(mechanism.noise_std, mechanism.dimension)
        self._failpoint(Failpoint.FLOOR_NOISED)
        return int(count[0] + noise[0])

    def _charge(self, admission: Admission, mechanism: Mechanism) -> None:
        run = count_id(admission.permit)
        with transaction(self._engine) as connection:
            charged = bool(self._ledger.entries(run=run, connection=connection))
            self._ledger.reserve(
                admission.budget,
                study=admission.study.digest,
                run=run,
                mechanisms=[mechanism],
                now=admission.held.view.now,
                connection=connection,
            )
            self._failpoint(Failpoint.FLOOR_RESERVED)
            if not charged:
                self._log(EventKind.BUDGET_CHARGED, admission, connection)
            self._failpoint(Failpoint.FLOOR_CHARGE_LOGGED)

    def _keep(self, admission: Admission, made: _Count) -> None:
        row = {
            "permit": admission.permit.digest,
            "data_version": made.data_version,
            "decision": made.decision,
            "created": admission.held.view.now,
        }
        with transaction(self._engine) as connection:
            self._recheck.require(admission, connection)
            connection.execute(insert(cohort_counts).values(row))
            self._failpoint(Failpoint.FLOOR_WRITTEN)

    def _log(self, kind: EventKind, admission: Admission, connection: Connection) -> None:
        self._decisions.event(
            kind,
            admission.subject,
            policies=admission.assessment.clauses,
            documents=admission.held.versions,
            connection=connection,
        )


def _records_changed(admission: Admission) -> Refusal:
    return Refusal(
        ReasonCode.DECLINED,
        "The records have changed since the cohort was counted under this permit",
        why="a permit pays for one noisy count; another one would cost the patients more than the "
        "study promises",
        fix="ask the officer to approve again with "
        f"`pratique-officer approve {admission.study.id} --reconsider`",
        clause=RECORDS_CHANGED,
    )


def _too_few(admission: Admission) -> Refusal:
    return Refusal(
        ReasonCode.DECLINED,
        "The cohort of the study is too small here",
        why=f"a noisy count did not reach {admission.held.view.agreement.smallest_cohort}, "
        "the smallest cohort of the agreement",
        fix="nothing; the count is made once for each permit",
        clause="agreement/smallest-cohort",
    )


def _mechanism(admission: Admission) -> Mechanism:
    for mechanism in admission.study.mechanisms:
        if mechanism.phase == COHORT_FLOOR and mechanism.scope is Scope.LOCAL:
            return mechanism
    raise Refusal(
        ReasonCode.POLICY,
        "The study does not provide for the noisy count behind the cohort floor",
        why="without it nobody could tell whether the cohort is large enough",
        fix="ask the coordinator to price the study with `study check`",
        clause="agreement/smallest-cohort",
    )
