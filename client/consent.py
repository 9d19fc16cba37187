"""Whether the own officer and operator still say yes: asked where something becomes final.

The gate has decided with all that there is to know; the work after it takes its time, and both may
speak meanwhile. They are asked in the transaction that makes the outcome final, so that either
their no comes after that transaction, or nothing comes of the work.
"""

from datetime import datetime

from sqlalchemy import Connection

from client.decisions import Clock
from client.documents import DocumentStore
from client.pause import PauseSwitch
from client.standing import PERMITTED, study_standing
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.trust.bundle import CountryDocuments
from protocols.errors import ReasonCode, Refusal

NO_LONGER = "node/permitted-no-longer"


class Consent:
    """The word of officer and operator at this moment. Safe among threads."""

    def __init__(self, documents: DocumentStore, pause: PauseSwitch, clock: Clock) -> None:
        self._documents, self._pause, self._clock = documents, pause, clock

    def require(self, study: Study, connection: Connection) -> None:
        """Raise Refusal where the node is paused or the study not permitted any more.

        What it finds cannot change until `connection` commits.
        """
        self._pause.require_running(connection)
        now = self._clock()
        own = self._own(now, connection)
        permit, withdrawal = own.permit(study.digest), own.withdrawal(study.digest)
        standing = study_standing(study, permit, withdrawal, self._documents.not_before(now))
        if standing != PERMITTED:
            raise Refusal(
                ReasonCode.NO_PERMIT,
                "The own officer's permit ended while the request was worked on",
                why=f"it stands at: {standing}. Nothing was sent; what was charged stays charged",
                fix="nothing to do here; the officer decides",
                clause=NO_LONGER,
            )

    def _own(self, now: datetime, connection: Connection) -> CountryDocuments:
        try:
            return self._documents.own(now, connection)
        except DocumentFault as fault:
            code = ReasonCode.DOCUMENTS_EXPIRED
            raise Refusal(code, fault.what, why=fault.why, fix=fault.fix) from fault
