"""`pratique-node opt-out`: shows and confirms entries of the opt-out list that match nobody.

Both work with or without a running daemon, and read the files as they are now.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from sqlalchemy import Engine

from client.commands.records import ReadRecords, read_records
from client.credentials.keyring import NodeKeyring
from client.errors import NodeFault
from client.home import NodeHome
from client.records.unmatched import UnmatchedEntry
from client.settings import NodeSettings
from client.state.decision_log import log_origin
from client.state.opt_out_confirmations import OptOutConfirmations
from client.state.state_check import StateCheck, open_log
from client.state.tables import MIGRATIONS
from governance.audit.events import Event, EventKind
from governance.audit.log import AuditLog
from governance.runtime.database import open_database, transaction
from governance.runtime.wording import counted
from keys.store import KeyStore

CONFIRMED = "entries of the opt-out list match no patient of this node"


@dataclass(frozen=True)
class OptOutReview:
    """The opt-out list of one node, against its records."""

    home: NodeHome
    settings: NodeSettings
    store: KeyStore

    @cached_property
    def records(self) -> ReadRecords:
        """The records and the list, read once."""
        return read_records(self.settings)

    @cached_property
    def _engine(self) -> Engine:
        return open_database(self.home.database, MIGRATIONS)

    @cached_property
    def _confirmations(self) -> OptOutConfirmations:
        return OptOutConfirmations(self._engine, self._keyring.split_key)

    @cached_property
    def _keyring(self) -> NodeKeyring:
        return NodeKeyring.load(self.store)

    def unconfirmed(self) -> tuple[UnmatchedEntry, ...]:
        """Return the entries that match nobody and are not confirmed, in the order of the list."""
        open_entries = set(self._confirmations.unconfirmed(self.settings, self.records.report))
        return tuple(entry for entry in self.records.unmatched if entry.entry in open_entries)

    def confirm(self, entries: Sequence[str], number: int | None, now: datetime) -> str:
        """Store the operator's confirmation, with a log entry; return what was confirmed.

        Raises NodeFault if an entry is not on the list or is a patient, or the number is another.
        """
        nation = self.settings.opt_out_covers == "nation"
        self._require(entries, number, nation=nation)
        event = Event(
            kind=EventKind.OPT_OUTS_CONFIRMED, at=now, actor=self.settings.country, reason=CONFIRMED
        )
        log = self._signed_log()
        with transaction(self._engine) as connection:
            if nation:
                self._confirmations.confirm_nation(self.records.report, connection)
            else:
                self._confirmations.confirm(entries, now, connection)
            log.append(event, connection)
        confirmed = len(self.records.unmatched) if nation else len(set(entries))
        return f"Confirmed: {counted(confirmed, 'entry matches', 'entries match')} no patient here"

    def _signed_log(self) -> AuditLog:
        """Return the log, once the database was checked: what is written next will be signed."""
        country, keyring = self.settings.country, self._keyring
        former = not keyring.signs_state
        log = open_log(self._engine, log_origin(country), keyring.log_key, former=former)
        StateCheck(self._engine, log, country).take_over()
        return log

    def _require(self, entries: Sequence[str], number: int | None, *, nation: bool) -> None:
        unmatched = {entry.entry for entry in self.records.unmatched}
        if nation and number != len(unmatched):
            raise NodeFault(
                "The list covers the nation, and is confirmed by a number",
                why=f"{counted(len(unmatched), 'entry matches', 'entries match')} nobody, and "
                f"{self.records.report.opted_out} match a patient; "
                + ("no number was given" if number is None else f"you gave {number}"),
                fix="if these numbers are right, run `pratique-node opt-out confirm --number "
                f"{len(unmatched)}`",
            )
        if nation:
            return
        if number is not None or not entries:
            raise NodeFault(
                "The entries of this list are confirmed by name",
                why="it is not declared to cover the nation (`opt_out_covers` in node.yaml)",
                fix="name each entry: `pratique-node opt-out confirm ID ...`; `pratique-node "
                "opt-out show` lists them",
            )
        wrong = [entry for entry in entries if entry not in unmatched]
        if wrong:
            raise NodeFault(
                f"{wrong[0]!r} is not among the entries that match nobody",
                why="it is a patient's id, or not on the list",
                fix="run `pratique-node opt-out show`, and copy the entry from there",
            )
