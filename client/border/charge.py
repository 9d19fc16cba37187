"""Writes a charge and its log entry in one transaction: both are stored, or neither is."""

from collections.abc import Sequence

from sqlalchemy import Connection, Engine

from client.border.admission import Admission
from client.border.failpoints import Failpoint, FailpointHook
from client.state.decision_log import DecisionLog
from client.state.state_check import row_names
from governance.audit.events import EventKind
from governance.budget.ledger import Ledger, ledger_entries
from governance.runtime.database import transaction
from protocols.numerics.mechanism import Mechanism


class Charges:
    """Charges the ledger for a release, before a record is read."""

    def __init__(
        self, engine: Engine, ledger: Ledger, decisions: DecisionLog, failpoint: FailpointHook
    ) -> None:
        self._engine, self._ledger, self._decisions = engine, ledger, decisions
        self._failpoint = failpoint

    def charged_by_another(self, admission: Admission, name: str) -> bool:
        """Return whether another study was charged under this name already."""
        entries = self._ledger.entries(run=name)
        return any(entry.study != admission.study.digest for entry in entries)

    def charge(
        self,
        admission: Admission,
        run: str,
        mechanisms: Sequence[Mechanism],
        *,
        reserved: Failpoint,
        logged: Failpoint,
    ) -> None:
        """Charge these mechanisms under the name of a run, and log the charge, once.

        A run that is charged already is neither charged nor logged again. `reserved` and `logged`
        are the failpoints within the transaction. Raises Refusal if the budget does not cover the
        mechanisms; then nothing is charged or logged.
        """
        with transaction(self._engine) as connection:
            charged = set(_names(run, connection))
            self._ledger.reserve(
                admission.budget,
                study=admission.study.digest,
                run=run,
                mechanisms=mechanisms,
                now=admission.documents.view.now,
                accounting=admission.study.accounting,
                connection=connection,
            )
            self._failpoint(reserved)
            new = tuple(name for name in _names(run, connection) if name not in charged)
            if new:
                self._log(admission, new, connection)
            self._failpoint(logged)

    def _log(self, admission: Admission, rows: tuple[str, ...], connection: Connection) -> None:
        self._decisions.event(
            EventKind.BUDGET_CHARGED,
            admission.subject,
            policies=admission.assessment.clauses,
            documents=admission.documents.versions,
            rows=rows,
            connection=connection,
        )


def _names(run: str, connection: Connection) -> tuple[str, ...]:
    """Return the digests by which the log names the charges of a run."""
    return row_names(connection, ledger_entries, ledger_entries.c.run == run)
