"""Whether own officer and operator still say the same yes: asked where something becomes final.

The gate has decided with all that there is to know; the work after it takes its time, and both may
speak meanwhile. They are asked in the transaction that makes the outcome final, so that either
their no comes after that transaction, or nothing comes of the work.
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
NOTHING_LEFT = "Nothing was sent; what was charged stays charged"


class PermissionRecheck:
    """The word of officer and operator at this moment. Safe among threads."""

    def __init__(self, documents: DocumentStore, pause: PauseSwitch, clock: Clock) -> None:
        self._documents, self._pause, self._clock = documents, pause, clock

    def require(self, admission: Admission, connection: Connection) -> None:
        """Raise Refusal where the node is paused, or not all stands that the gate decided by.

        A permit that ended is final. Another permit or national policy is for the gate to judge,
        when the coordinator asks again, as it does where a node says that its documents were
        behind. What is found cannot change until `connection` commits.
        """
        self._pause.require_running(connection)
        now = self._clock()
        own = self._own(now, connection)
        self._require_permitted(admission, own, now)
        permit = own.permit(admission.study.digest)
        if permit != admission.permit or own.policy != admission.held.own.policy:
            raise Refusal(
                ReasonCode.DOCUMENTS_BEHIND,
                "The own officer's permit or national policy changed while the request was "
                "worked on",
                why=f"it was let in under the former one. {NOTHING_LEFT}",
                fix="nothing to do here; asked again, the node decides by what is in force",
                clause=OTHERWISE,
            )

    def _require_permitted(
        self, admission: Admission, own: CountryDocuments, now: datetime
    ) -> None:
        study, moment = admission.study, self._documents.not_before(now)
        permit, withdrawal = own.permit(study.digest), own.withdrawal(study.digest)
        standing = study_status(study, permit, withdrawal, moment)
        if standing != PERMITTED:
            raise Refusal(
                ReasonCode.NO_PERMIT,
                "The own officer's permit ended while the request was worked on",
                why=f"it stands at: {standing}. {NOTHING_LEFT}",
                fix="nothing to do here; the officer decides",
                clause=NO_LONGER,
            )

    def _own(self, now: datetime, connection: Connection) -> CountryDocuments:
        try:
            return self._documents.own(now, connection)
        except DocumentFault as fault:
            code = ReasonCode.DOCUMENTS_EXPIRED
            raise Refusal(code, fault.what, why=fault.why, fix=fault.fix) from fault
