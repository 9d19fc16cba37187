"""The cohort floor: whether a study's eligible cohort is large enough, told by a noisy count.

The count is a release like any other: charged and logged first, with this country's own noise, made
once for each permit and data version and kept. Below the floor the coordinator reads `declined`.
"""

import os
from collections.abc import Callable

from sqlalchemy import Connection, Engine, insert, select

from client.admission import Admission
from client.decisions import Decisions
from client.holdings import Holdings
from client.state import cohort_counts
from governance.audit.events import EventKind
from governance.database import transaction
from governance.documents.permit import Permit
from governance.ledger import Ledger
from keys.derive import labelled_hash
from protocols.errors import ReasonCode, Refusal
from protocols.mechanism import Mechanism, Scope
from protocols.noise import NoiseSource
from protocols.tasks.schedule import COHORT_FLOOR

COUNT_LABEL = "pratique/cohort-count/v1"
COUNT_ID_BYTES = 16
ENOUGH, TOO_FEW = "enough", "too-few"


def count_id(permit: Permit, data_version: str) -> str:
    """Return the name, 32 hexadecimal digits, under which this count is charged once."""
    fields = permit.digest.encode(), data_version.encode()
    return labelled_hash(COUNT_LABEL, *fields)[:COUNT_ID_BYTES].hex()


class CohortFloor:
    """The floor of one node."""

    def __init__(
        self,
        engine: Engine,
        *,
        ledger: Ledger,
        decisions: Decisions,
        holdings: Holdings,
        noise: NoiseSource,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._engine, self._ledger, self._decisions = engine, ledger, decisions
        self._holdings, self._noise, self._entropy = holdings, noise, entropy

    def require(self, admission: Admission) -> str:
        """Return the data version whose cohort is large enough. Raises Refusal DECLINED."""
        version = self._holdings.records().version
        decision = self._decided(admission.permit, version) or self._count(admission, version)
        if decision != ENOUGH:
            raise Refusal(
                ReasonCode.DECLINED,
                "The cohort of the study is too small here",
                why=f"a noisy count did not reach {admission.held.view.agreement.smallest_cohort}, "
                "the smallest cohort of the agreement",
                fix="nothing; the count is made once for each permit and version of the data",
                clause="agreement/smallest-cohort",
            )
        return version

    def _decided(self, permit: Permit, version: str) -> str | None:
        query = select(cohort_counts.c.decision).where(
            cohort_counts.c.permit == permit.digest, cohort_counts.c.data_version == version
        )
        with transaction(self._engine) as connection:
            found: str | None = connection.execute(query).scalar_one_or_none()
        return found

    def _count(self, admission: Admission, version: str) -> str:
        mechanism = _mechanism(admission)
        assignment = self._holdings.assignment(admission.study)
        self._charge(admission, mechanism, version)
        count = assignment.lattice_sum(mechanism, b"", entropy=self._entropy)
        noisy = int(count[0] + self._noise.draw(mechanism.noise_std, mechanism.dimension)[0])
        smallest = admission.held.view.agreement.smallest_cohort * mechanism.scale
        return self._keep(admission, version, ENOUGH if noisy >= smallest else TOO_FEW)

    def _charge(self, admission: Admission, mechanism: Mechanism, version: str) -> None:
        name = count_id(admission.permit, version)
        with transaction(self._engine) as connection:
            self._ledger.reserve(
                admission.budget,
                study=admission.study.digest,
                run=name,
                mechanisms=[mechanism],
                now=admission.held.view.now,
                connection=connection,
            )
            self._log(EventKind.BUDGET_CHARGED, admission, connection)

    def _keep(self, admission: Admission, version: str, decision: str) -> str:
        row = {"permit": admission.permit.digest, "data_version": version, "decision": decision}
        with transaction(self._engine) as connection:
            connection.execute(insert(cohort_counts).values(created=admission.held.view.now, **row))
        return decision

    def _log(self, kind: EventKind, admission: Admission, connection: Connection) -> None:
        self._decisions.event(
            kind,
            admission.subject,
            policies=admission.assessment.clauses,
            documents=admission.held.versions,
            connection=connection,
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
