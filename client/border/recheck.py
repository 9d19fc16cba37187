"""Re-checks that the officer's permit and the operator's settings still allow a reply.

The gate has decided on all facts, but the work after it takes time, and the officer or the operator
may decide otherwise meanwhile. So both are checked again in the transaction that makes the reply
final. If they refuse before that transaction, the reply is never sent.
"""

from datetime import datetime

from sqlalchemy import Connection

from client.border.admission import Admission
from client.documents.store import DocumentStore
from client.documents.study_status import PERMITTED, study_status
from client.state.decision_log import Clock
from client.state.pause import PauseSwitch
from governance.errors import DocumentFault
from governance.trust.bundle import CountryDocuments
from protocols.errors import ReasonCode, Refusal

NO_LONGER = "node/permitted-no-longer"
OTHERWISE = "node/permitted-otherwise"
NOTHING_LEFT = "nothing was sent; what was charged stays charged"


class PermissionRecheck:
    """Checks the permit and the pause at this moment. Thread-safe."""

    def __init__(self, documents: DocumentStore, pause: PauseSwitch, clock: Clock) -> None:
        self._documents, self._pause, self._clock = documents, pause, clock

    def require(self, admission: Admission, connection: Connection) -> None:
        """Raise Refusal if the node is paused, or if permit or policy differ from the gate's.

        The end of a permit is final. If the permit or the national policy has changed, the gate
        must judge it when the coordinator asks again; the coordinator does so if a node answers
        that its documents were behind. The result cannot change until `connection` commits.
        """
        self._pause.require_running(connection)
        now = self._clock()
        own = self._own(now, connection)
        self._require_permitted(admission, own, now)
        permit = own.permit(admission.study.digest)
        if permit != admission.permit or own.policy != admission.documents.own.policy:
            raise Refusal(
                ReasonCode.DOCUMENTS_BEHIND,
                "The officer's permit or national policy changed while the request was processed",
                why=f"the request was admitted under the former one; {NOTHING_LEFT}",
                fix="do nothing here; the node decides again when the coordinator asks again",
                clause=OTHERWISE,
            )

    def _require_permitted(
        self, admission: Admission, own: CountryDocuments, now: datetime
    ) -> None:
        study, moment = admission.study, self._documents.not_before(now)
        permit, withdrawal = own.permit(study.digest), own.withdrawal(study.digest)
        status = study_status(study, permit, withdrawal, moment)
        if status != PERMITTED:
            raise Refusal(
                ReasonCode.NO_PERMIT,
                "The officer's permit ended while the request was processed",
                why=f"the status of the study is now: {status}; {NOTHING_LEFT}",
                fix="do nothing here; the officer decides",
                clause=NO_LONGER,
            )

    def _own(self, now: datetime, connection: Connection) -> CountryDocuments:
        try:
            return self._documents.own(now, connection)
        except DocumentFault as fault:
            code = ReasonCode.DOCUMENTS_EXPIRED
            raise Refusal(code, fault.what, why=fault.why, fix=fault.fix) from fault
