"""Answers each frame of the coordinator: the gate decides, then the phase is carried out.

The reply is either one that the outbox has made final, or a refusal that carries one reason code.
The head of the log is moved before either leaves (`client.state.log_head`). Every other fault is
sent as `declined`, and its text stays on the node. A reply that may depend on records leaves at one
of a few moments after the request arrived (`client.border.reply_timing`).
"""

import logging
from threading import Lock

from client.border.admission import Admission, Repetition
from client.border.cohort_floor import CohortFloor
from client.border.door import Door
from client.border.failpoints import Failpoint, FailpointHook, no_failpoint
from client.border.gate import Gate
from client.border.outbox import Outbox
from client.border.reply_timing import ReplySlots
from client.errors import RecordFault
from client.records.store import records_unusable
from client.state.decision_log import DecisionLog, Subject
from client.state.log_head import LogHeadGuard
from client.tasks.prepared import PreparedTasks
from governance.audit.events import EventKind
from keys.errors import PratiqueError
from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.messages import Request, read_request, refusal_reply
from protocols.proto.round_pb2 import (
    PHASE_AGREE,
    PHASE_ANSWER,
    PHASE_BUNDLE,
    PHASE_CONFIRM,
    PHASE_CONTRIBUTE,
    PHASE_ENCAPSULATE,
)

_log = logging.getLogger("pratique.node")


class RequestHandler:
    """Answers frames, one at a time."""

    def __init__(
        self,
        *,
        gate: Gate,
        floor: CohortFloor,
        door: Door,
        tasks: PreparedTasks,
        outbox: Outbox,
        decisions: DecisionLog,
        log_head: LogHeadGuard,
        slots: ReplySlots,
        failpoint: FailpointHook = no_failpoint,
    ) -> None:
        self._gate, self._floor, self._door, self._tasks = gate, floor, door, tasks
        self._outbox, self._decisions = outbox, decisions
        self._log_head, self._slots, self._failpoint = log_head, slots, failpoint
        self._lock = Lock()

    def handle(self, frame: bytes) -> bytes:
        """Return the reply to a frame. It never raises: what cannot be answered is refused."""
        arrived = self._slots.monotonic()
        with self._lock:
            try:
                return self._with_head_moved(self._answer(frame))
            except Refusal as refusal:
                return self._refuse(refusal, frame)
            except RecordFault:
                return self._refuse(records_unusable(), frame)
            except PratiqueError as fault:
                return self._refuse(_declined(fault.what, fault.why, fault.fix), frame)
            except Exception as error:  # noqa: BLE001 - no text of an error may cross the border
                _log.error("a message met a fault", extra={"what": type(error).__name__})
                return self._refuse(_declined(*_unexpected(error)), frame)
            finally:
                self._wait_for_slot(frame, arrived)

    def _answer(self, frame: bytes) -> bytes:
        admitted = self._gate.admit(frame)
        if isinstance(admitted, Repetition):
            self._decisions.repeated(admitted.subject)
            return admitted.reply
        self._slots.know(admitted.place.run)
        if admitted.request.phase == PHASE_CONTRIBUTE:
            return self._door.contribute(admitted)
        if admitted.request.phase == PHASE_BUNDLE:
            return self._enter(admitted)
        return self._set_up_or_answer(admitted)

    def _with_head_moved(self, reply: bytes) -> bytes:
        self._log_head.move()
        self._failpoint(Failpoint.HEAD_MOVED)
        return reply

    def _enter(self, admission: Admission) -> bytes:
        version = self._floor.require(admission)
        split = self._tasks.split(admission.study, admission.place.run)
        reply = admission.run.bundle(admission.frame)
        return self._outbox.keep(
            admission, reply, EventKind.RUN_JOINED, data_version=version, split=split
        )

    def _set_up_or_answer(self, admission: Admission) -> bytes:
        run = admission.run
        phase_reply, kind = {
            PHASE_ENCAPSULATE: (run.encapsulate, EventKind.REQUEST_ALLOWED),
            PHASE_CONFIRM: (run.confirm, EventKind.REQUEST_ALLOWED),
            PHASE_AGREE: (run.agree, EventKind.SET_AGREED),
            PHASE_ANSWER: (run.answer, EventKind.SUM_ANSWERED),
        }[admission.request.phase]
        version = admission.record.data_version if admission.record else ""
        reply, reason = phase_reply(admission.frame), _agreed_set(admission)
        return self._outbox.keep(admission, reply, kind, data_version=version, reason=reason)

    def _wait_for_slot(self, frame: bytes, arrived: float) -> None:
        request = _readable(frame)
        if request is not None and request.phase in (PHASE_BUNDLE, PHASE_CONTRIBUTE):
            self._slots.wait(arrived, (request.body.run_id.hex(), request.phase))

    def _refuse(self, refusal: Refusal, frame: bytes) -> bytes:
        self._decisions.refused(refusal, Subject.of(frame, _readable(frame)))
        try:
            self._log_head.move()  # a refusal, too, may reveal the decision of a noisy count
        except PratiqueError as fault:
            _log.error("the log's head could not be moved on", extra={"why": fault.why})
            return refusal_reply(ReasonCode.DECLINED)
        return refusal_reply(refusal.code)


def _readable(frame: bytes) -> Request | None:
    try:
        return read_request(frame)
    except Refusal:
        return None


def _agreed_set(admission: Admission) -> str | None:
    """Return, for the audit log, the smaller set of countries that this country signed, if any."""
    if admission.request.phase != PHASE_AGREE:
        return None
    agreed = admission.request.body.agree.countries
    left_out = [country for country in admission.roster if country not in agreed]
    return f"{len(agreed)} of {len(admission.roster)} countries, without {', '.join(left_out)}"


def _declined(what: str, why: str, fix: str) -> Refusal:
    return Refusal(ReasonCode.DECLINED, what, why=why, fix=fix)


def _unexpected(error: Exception) -> tuple[str, str, str]:
    return (
        "An unexpected fault occurred in the node",
        f"its kind is {type(error).__name__}; nothing was released",
        "read the node's log, and report the fault",
    )
