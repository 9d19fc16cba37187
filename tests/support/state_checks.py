"""Check what must be true of a node's state after any crash, from its files alone.

Nothing of the node's own code is used except its keys: rows are read by plain SQL, and the log is
verified by the verifier that shares no code with the store.
"""

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from client.state.decision_log import log_origin
from governance.audit.log import AuditLog
from governance.audit.verify import verify_export
from keys.identity import SigningKey
from protocols.wire.encoding import digest

Place = tuple[str, int, str]
"""Run id, round, phase."""


@dataclass
class StateChecks:
    """Checks of one node's ledger, journal and log, with all that was seen of them before."""

    database: Path
    country: str
    log_key: SigningKey
    cap_micro: int
    heads: list[bytes] = field(default_factory=list)
    kept: dict[Place, bytes] = field(default_factory=dict)
    left: dict[Place, bytes] = field(default_factory=dict)
    schedules: dict[str, Counter[str]] = field(default_factory=dict)
    """By run, the phases that are charged before its first contribution."""

    def check(self) -> None:
        """Raise AssertionError unless the state is right, and continues what was seen before."""
        entries = self._verified_log()
        with closing(sqlite3.connect(self.database)) as raw:
            raw.row_factory = sqlite3.Row
            ledger = raw.execute("SELECT * FROM ledger_entries").fetchall()
            journal = raw.execute("SELECT * FROM journal").fetchall()
        self._never_over_and_never_double(ledger)
        self._charges_are_logged(ledger, entries)
        self._nothing_is_kept_uncharged(ledger, journal)
        self._what_was_kept_stays(journal)
        self._what_was_kept_or_left_is_logged(journal, entries)

    def took(self, place: Place, reply: bytes) -> None:
        """Note a reply that left. Raises AssertionError if another one left at its place."""
        assert self.left.setdefault(place, reply) == reply, f"another reply left at {place}"

    def charged(self, run: str) -> Counter[str]:
        """Return the phases that a run was charged for."""
        with closing(sqlite3.connect(self.database)) as raw:
            rows = raw.execute("SELECT phase FROM ledger_entries WHERE run = ?", (run,))
            return Counter(phase for (phase,) in rows)

    def _verified_log(self) -> list[dict[str, Any]]:
        engine = create_engine(f"sqlite:///{self.database}", poolclass=NullPool)
        log = AuditLog(engine, log_origin(self.country), self.log_key)
        note, lines = log.checkpoint(), list(log.export())
        verify_export(lines, note, log.verifier, seen=self.heads)
        self.heads = [*self.heads[-5:], note]
        return [json.loads(line)["entry"] for line in lines]

    def _never_over_and_never_double(self, ledger: list[sqlite3.Row]) -> None:
        assert sum(row["rdp_micro"] for row in ledger) <= self.cap_micro
        charges = Counter((row["run"], row["phase"]) for row in ledger)
        assert set(charges.values()) <= {1}
        for run, schedule in self.schedules.items():
            phases = Counter(row["phase"] for row in ledger if row["run"] == run)
            assert phases in (Counter(), schedule), f"half a schedule was charged: {phases}"
        counts = Counter(row["study"] for row in ledger if row["run"].startswith("count-"))
        assert set(counts.values()) <= {1}, "a cohort was counted twice under one permit"

    def _charges_are_logged(self, ledger: list[sqlite3.Row], entries: list[dict[str, Any]]) -> None:
        logged = [entry for entry in entries if entry["kind"] == "budget-charged"]
        assert len(logged) == len({row["run"] for row in ledger}), "charges and entries differ"

    def _nothing_is_kept_uncharged(
        self, ledger: list[sqlite3.Row], journal: list[sqlite3.Row]
    ) -> None:
        charged = {row["run"] for row in ledger}
        counted = {row["study"] for row in ledger if row["run"].startswith("count-")}
        assert counted or not journal, "a run was entered whose cohort was not counted"
        for row in journal:
            if row["phase"] == "contribute":
                assert row["run_id"] in charged, "a sum was kept that was not charged"

    def _what_was_kept_stays(self, journal: list[sqlite3.Row]) -> None:
        """Check that no reply on disk has changed and no place is free again: it may have left."""
        replies = {(row["run_id"], row["round"], row["phase"]): row["reply"] for row in journal}
        for place, reply in (self.kept | self.left).items():
            assert place in replies, f"the place {place} is free again"
            assert replies[place] in (None, reply), f"there is another reply at {place}"
        self.kept |= {place: reply for place, reply in replies.items() if reply is not None}

    def _what_was_kept_or_left_is_logged(
        self, journal: list[sqlite3.Row], entries: list[dict[str, Any]]
    ) -> None:
        bodies = {entry.get("body") for entry in entries}
        for place, reply in (self.kept | self.left).items():
            assert digest(reply) in bodies, f"the reply at {place} is in no entry"
        sums = Counter(
            (entry["run"], entry["round"])
            for entry in entries
            if entry["kind"] == "sum-contributed"
        )
        kept = {(r["run_id"], r["round"]) for r in journal if r["phase"] == "contribute"}
        assert sums == Counter(kept), "sums kept and sums logged differ"
