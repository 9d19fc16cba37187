"""Limits how many runs can be entered under one permit before one of them is charged.

A run that is entered leaves its id, its places and its entries in the log for ever, and the
coordinator decides how many there are. So a permit has room for the first few at once, and then for
one after a pause that doubles up to a day. Only one of them is open: a newer one ends the other.

The rule counts runs, and nothing that depends on records. Once one run is charged, the permit is
used (`client.border.gate`), and no other is entered.
"""

from datetime import datetime, timedelta

from sqlalchemy import Connection

from client.border.admission import Admission
from client.state.run_expiry import RunExpiry
from client.state.runs import RunStore
from governance.budget.ledger import Ledger
from governance.documents.permit import Permit
from protocols.errors import ReasonCode, Refusal

AT_ONCE = 10
"""Runs of one permit that can be entered without a pause."""
LONGEST = timedelta(days=1)
MOST_DOUBLINGS = 11
"""One minute doubled so often is longer than a day."""
CLAUSE = "node/run-entries"


def pause_before_next(entered: int) -> timedelta:
    """Return how long after the last of so many entered runs the next one can be entered."""
    if entered < AT_ONCE:
        return timedelta(0)
    doublings = min(entered - AT_ONCE, MOST_DOUBLINGS)
    return min(timedelta(minutes=2**doublings), LONGEST)


class RunLimit:
    """The limit of one node."""

    def __init__(self, runs: RunStore, ledger: Ledger, expiry: RunExpiry) -> None:
        self._runs, self._ledger, self._expiry = runs, ledger, expiry

    def require_room(self, permit: Permit, now: datetime) -> None:
        """Raise Refusal NO_PERMIT if another run cannot be entered under this permit yet."""
        entered, last = self._runs.entered(permit.study, permit.issued)
        if last is None or now >= last + pause_before_next(entered):
            return
        earliest = last + pause_before_next(entered)
        raise Refusal(
            ReasonCode.NO_PERMIT,
            "Too many runs of this study were entered under one permit",
            why=f"{entered} were entered and none contributed; each stays in this node's log for "
            f"ever, so the next one can be entered at {earliest:%Y-%m-%d %H:%M:%S} UTC",
            fix="ask the coordinator why its runs do not begin; a new approval "
            "(`approve --reconsider`) removes the wait",
            clause=CLAUSE,
        )

    def end_replaced(self, admission: Admission, connection: Connection) -> None:
        """End the open runs of the study that were not charged, since another one is entered."""
        self._expiry.end_replaced(
            admission.study.digest,
            admission.documents.view.now,
            connection,
            charged=lambda run: bool(self._ledger.entries(run=run, connection=connection)),
        )
