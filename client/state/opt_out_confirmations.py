"""Stores which entries of the opt-out list the operator confirmed to match no patient.

An entry that matches nobody may be a patient whose id is written in another form, and who stays in.
So each is a fault until the operator has confirmed it by name. A list of the whole nation is
confirmed once, by the number of such entries; the fault returns if the list later matches far fewer
patients than then. The stored hashes are keyed: `state.db` holds no id of a patient.

None of this decides a reply.
"""

import hmac
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, insert, select

from client.records.quality_report import QualityReport
from client.settings import NodeSettings
from client.state.covered_rows import OPT_OUTS, changing
from client.state.key_value import get_value, set_value
from client.state.tables import opt_out_confirmations
from governance.runtime.database import transaction
from governance.runtime.wording import counted
from keys.derive import derive_key, frame

LABEL = "pratique/opt-out-confirmed/v1"
NATION = "opt-out-nation"
FEWER = 2
"""Ask again once a list matches less than one in so many of the patients that it matched then."""


@dataclass(frozen=True)
class NationalList:
    """The numbers of entries that matched a patient, and that matched nobody, when confirmed."""

    matched: int
    unmatched: int


class OptOutConfirmations:
    """The confirmations of one node, in its state database."""

    def __init__(self, engine: Engine, secret: bytes) -> None:
        """`secret` is a secret of the node, from which the key of the hashes is derived."""
        self._engine, self._key = engine, derive_key(secret, LABEL, b"")

    def unconfirmed(self, settings: NodeSettings, report: QualityReport) -> tuple[str, ...]:
        """Return the entries that match nobody and that the operator has not confirmed."""
        unmatched = report.unknown_opt_outs
        if not unmatched:
            return ()
        if settings.opt_out_covers == "nation":
            return () if self._still_matches(report) else unmatched
        query = select(opt_out_confirmations.c.entry)
        with transaction(self._engine) as connection:
            known = set(connection.execute(query).scalars())
        return tuple(entry for entry in unmatched if self._hash(entry) not in known)

    def confirm(self, entries: Iterable[str], now: datetime, connection: Connection) -> None:
        """Store that these entries match no patient."""
        known = set(connection.execute(select(opt_out_confirmations.c.entry)).scalars())
        new = sorted({self._hash(entry) for entry in entries} - known)
        if new:
            rows = [{"entry": entry, "confirmed": now} for entry in new]
            with changing(connection, OPT_OUTS):
                connection.execute(insert(opt_out_confirmations), rows)

    def confirm_nation(self, report: QualityReport, connection: Connection) -> None:
        """Store how many entries of a national list match a patient, and how many nobody."""
        numbers = NationalList(report.opted_out, len(report.unknown_opt_outs))
        set_value(connection, NATION, json.dumps(asdict(numbers)))

    def _still_matches(self, report: QualityReport) -> bool:
        with transaction(self._engine) as connection:
            stored = get_value(connection, NATION)
        if stored is None:
            return False
        return report.opted_out * FEWER >= NationalList(**json.loads(stored)).matched

    def _hash(self, entry: str) -> str:
        return hmac.digest(self._key, frame(entry.encode()), "sha256").hex()


def unconfirmed_sentence(entries: int) -> str:
    """Return a sentence about entries that are not confirmed, without an id."""
    match = counted(entries, "entry", "entries")
    return f"{match} of the opt-out list {'matches' if entries == 1 else 'match'} no patient"
