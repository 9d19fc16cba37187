"""The log against a simple model: appends, crashes, checkpoints, restored backups, edits."""

import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from governance.audit.checkpoint import open_checkpoint
from governance.audit.events import entry_bytes
from governance.audit.log import AuditLog
from governance.audit.merkle import leaf_hash, verify_consistency, verify_inclusion
from governance.audit.verify import verify_export
from governance.errors import LogFault
from tests.support.examples import examples
from tests.support.ledger_and_log import (
    ORIGIN,
    audit_log,
    event,
    node_state,
)
from tests.support.reference_merkle import reference_root


class LogMachine(RuleBasedStateMachine):
    """`entries` is what must be stored; `seen` are checkpoints that others have."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.engine = node_state(self.folder / "live")
        self.entries: list[bytes] = []
        self.seen: list[bytes] = []
        self.backup: int | None = None

    @property
    def log(self) -> AuditLog:
        return audit_log(self.engine)

    def next_entry(self, actor: str) -> bytes:
        index = len(self.entries)
        return entry_bytes(event(index, actor=actor), origin=ORIGIN, index=index)

    @rule(actor=st.sampled_from(["XA", "XB"]))
    def append(self, actor: str) -> None:
        entry = self.next_entry(actor)
        assert self.log.append(event(len(self.entries), actor=actor)) == len(self.entries)
        self.entries.append(entry)

    @rule(count=st.integers(1, 9))
    def append_many_at_once(self, count: int) -> None:
        with self.engine.begin() as connection:
            for _ in range(count):
                entry = self.next_entry("XA")
                self.log.append(event(len(self.entries)), connection)
                self.entries.append(entry)

    @rule(count=st.integers(1, 5))
    def crash_before_commit(self, count: int) -> None:
        with self.engine.connect() as connection:
            for number in range(count):
                self.log.append(event(number, actor="lost"), connection)
            connection.rollback()

    @rule()
    def sign(self) -> None:
        self.seen.append(self.log.checkpoint())

    @rule()
    def reopen(self) -> None:
        self.engine.dispose()
        self.engine = node_state(self.folder / "live")

    @rule()
    def back_up(self) -> None:
        self.engine.dispose()
        shutil.rmtree(self.folder / "backup", ignore_errors=True)
        shutil.copytree(self.folder / "live", self.folder / "backup")
        self.backup = len(self.entries)

    @precondition(lambda self: self.backup is not None and self.backup < self.largest_seen())
    @rule(grow=st.integers(0, 12))
    def a_restored_backup_is_found(self, grow: int) -> None:
        shutil.copytree(self.folder / "backup", self.folder / "restored")
        engine = node_state(self.folder / "restored")
        restored = audit_log(engine)
        for _ in range(grow):
            restored.append(event(actor="fork"))
        largest = max(self.seen, key=self.size_of)
        with pytest.raises(LogFault):
            restored.require_head(open_checkpoint(largest, restored.verifier))
        engine.dispose()
        shutil.rmtree(self.folder / "restored")

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def an_edited_entry_is_named(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.entries) - 1))
        position = data.draw(st.integers(0, len(self.entries[index]) - 1))
        bit = data.draw(st.integers(0, 7))
        note = self.log.checkpoint()
        changed = bytearray(self.entries[index])
        changed[position] ^= 1 << bit
        self.engine.dispose()
        shutil.copytree(self.folder / "live", self.folder / "edited")
        overwrite(self.folder / "edited" / "state.db", index, bytes(changed))
        engine = node_state(self.folder / "edited")
        with pytest.raises(LogFault, match=f"Entry {index} "):
            verify_export(audit_log(engine).export(), note, self.log.verifier)
        engine.dispose()
        shutil.rmtree(self.folder / "edited")

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def proofs_verify(self, data: st.DataObject) -> None:
        size = data.draw(st.integers(1, len(self.entries)))
        index = data.draw(st.integers(0, size - 1))
        leaves = [leaf_hash(entry) for entry in self.entries]
        root, whole = reference_root(leaves[:size]), reference_root(leaves)
        verify_inclusion(index, size, leaves[index], self.log.inclusion_proof(index, size), root)
        proof = self.log.consistency_proof(size, len(leaves))
        verify_consistency(size, root, len(leaves), whole, proof)

    @invariant()
    def every_entry_stands(self) -> None:
        assert list(self.log.entries()) == self.entries

    @invariant()
    def the_log_continues_all_that_was_seen(self) -> None:
        head = self.log.checkpoint()
        verified = verify_export(self.log.export(), head, self.log.verifier, seen=self.seen)
        assert verified.size == len(self.entries)
        for checkpoint in self.seen:
            self.log.require_head(open_checkpoint(checkpoint, self.log.verifier))

    def size_of(self, note: bytes) -> int:
        return open_checkpoint(note, self.log.verifier).size

    def largest_seen(self) -> int:
        return max(map(self.size_of, self.seen), default=0)

    def teardown(self) -> None:
        self.engine.dispose()
        shutil.rmtree(self.folder)


def overwrite(database: Path, index: int, entry: bytes) -> None:
    connection = sqlite3.connect(database)
    connection.execute("DROP TRIGGER log_entries_update")
    connection.execute("UPDATE log_entries SET entry = ? WHERE position = ?", (entry, index))
    connection.commit()
    connection.close()


TestLogMachine = LogMachine.TestCase
TestLogMachine.settings = settings(max_examples=examples(20), stateful_step_count=20, deadline=None)
