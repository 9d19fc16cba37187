"""The one door: every result that is computed from records leaves here, as a private sum.

The order of these steps must never change:

1. permit and policy allow the release (the admission carries the decision);
2. the charge and its log entry are written in one transaction;
3. the contribution is computed and rounded;
4. noise is added, then the mask;
5. journal, run state and log entry are written in one transaction.

A crash in between leaves a charge without a release. A retry finds the charge and produces a fresh
release. A journalled reply is sent again unchanged.

In local mode the contribution results from local steps. The sum of each step gets its noise before
it is used (`client.tasks.local`), and the result leaves like any other sum.

The noise source is a constructor argument. No flag, setting or document field selects it.
"""

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from client.border.admission import Admission
from client.border.charge import Charges
from client.border.failpoints import Failpoint, FailpointHook, no_failpoint
from client.border.outbox import Outbox
from client.errors import RecordFault
from client.records.store import records_unusable
from client.tasks.assignment import Assignment
from client.tasks.local import Descent
from client.tasks.prepared import Prepared, PreparedTasks
from governance.audit.events import EventKind
from governance.budget.composition import LARGER
from protocols.errors import ReasonCode, Refusal
from protocols.numerics.mechanism import Scope
from protocols.numerics.noise import NoiseSource
from protocols.private_sum.context import RoundTerms
from protocols.tasks.schedule import LOCAL_STEP

SPLIT_CHANGED = "node/split-changed"


class Door:
    """The door of one node."""

    def __init__(
        self,
        *,
        charges: Charges,
        tasks: PreparedTasks,
        outbox: Outbox,
        noise: NoiseSource,
        entropy: Callable[[int], bytes] = os.urandom,
        failpoint: FailpointHook = no_failpoint,
    ) -> None:
        self._charges, self._tasks, self._outbox = charges, tasks, outbox
        self._noise, self._entropy, self._failpoint = noise, entropy, failpoint

    def contribute(self, admission: Admission) -> bytes:
        """Return the masked, noisy sum of this round, after it is charged, logged and journalled.

        Raises Refusal, or the fault that stopped it; then nothing has left.
        """
        admission.assessment.require()
        terms = _round_that_leaves(admission)
        self._failpoint(Failpoint.DOOR_PERMITTED)
        prepared = self._prepared(admission)
        self._failpoint(Failpoint.DOOR_PREPARED)
        self._charge(admission)
        self._failpoint(Failpoint.DOOR_CHARGED)
        values = self._contribution(prepared.assignment, admission, terms)
        self._failpoint(Failpoint.DOOR_SUMMED)
        noise = self._noise.draw(terms.mechanism.noise_std, terms.mechanism.dimension)
        self._failpoint(Failpoint.DOOR_NOISED)
        reply = admission.run.contribute(admission.frame, values, noise)
        return self._outbox.keep(
            admission, reply, EventKind.SUM_CONTRIBUTED, data_version=prepared.version
        )

    def _prepared(self, admission: Admission) -> Prepared:
        """Return the study's task, on the records and with the split that the run began with."""
        try:
            prepared = self._tasks.prepared(admission.study, admission.place.run)
        except RecordFault:
            raise records_unusable() from None
        if admission.record is None or prepared.version != admission.record.data_version:
            raise Refusal(
                ReasonCode.DECLINED,
                "The records have changed since this run began",
                why="the cohort floor was decided for another version of the records",
                fix="ask the officer to approve the study again (`approve --reconsider`), then "
                "start a new run",
            )
        if admission.study.accounting == LARGER and prepared.split != admission.record.split:
            raise _split_changed()
        return prepared

    def _charge(self, admission: Admission) -> None:
        """Charge the whole schedule of the run, once, before a record is touched.

        Later rounds are logged in the entry of their sum. So a request that fails here again and
        again writes nothing more.
        """
        self._charges.charge(
            admission,
            admission.place.run,
            admission.study.charged_by_run,
            reserved=Failpoint.DOOR_RESERVED,
            logged=Failpoint.DOOR_CHARGE_LOGGED,
        )

    def _contribution(
        self, assignment: Assignment, admission: Admission, terms: RoundTerms
    ) -> NDArray[np.int64]:
        if terms.mechanism.scope is Scope.DERIVED:
            return self._local_update(assignment, admission, terms)
        model = admission.request.model
        return assignment.lattice_sum(terms.mechanism, model, entropy=self._entropy)

    def _local_update(
        self, assignment: Assignment, admission: Admission, terms: RoundTerms
    ) -> NDArray[np.int64]:
        mechanism = terms.run.mechanism(LOCAL_STEP)
        descent = Descent.start(
            assignment.task,
            admission.study.features,
            countries=len(admission.study.countries),
            round_number=terms.round_number,
            payload=admission.request.model,
        )
        while not descent.over:
            values = assignment.lattice_sum(mechanism, descent.payload, entropy=self._entropy)
            noise = self._noise.draw(mechanism.noise_std, mechanism.dimension)
            descent = descent.step(values + noise, mechanism.scale)
        return descent.update(terms.mechanism)


def _split_changed() -> Refusal:
    return Refusal(
        ReasonCode.DECLINED,
        "What decides who trains and who is held out has changed since this run began",
        why="a patient who changed sides within a run would pay for training and for evaluation, "
        "and the study charges only the larger of the two",
        fix="open the node's keys and the data dictionary with which the run began; otherwise ask "
        "the officer to approve the study again (`approve --reconsider`), then start a new run",
        clause=SPLIT_CHANGED,
    )


def _round_that_leaves(admission: Admission) -> RoundTerms:
    """Return the round if its sum may leave the country.

    A release under this country's noise alone is not a sum over countries, and never leaves.
    """
    terms = admission.round
    if terms is None or not terms.mechanism.leaves_country:
        raise Refusal(
            ReasonCode.TASK_UNKNOWN,
            "The request asks for a round that never leaves a country",
            why="its noise is of this country alone, and only sums over countries are sent",
            clause="node/door",
        )
    return terms
