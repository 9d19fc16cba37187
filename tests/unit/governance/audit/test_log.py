import hashlib
import shutil
import sqlite3
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy import event as listen
from sqlalchemy.exc import IntegrityError

from governance.audit.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from governance.audit.events import parse_entry
from governance.audit.log import PAGE, AuditLog
from governance.audit.merkle import leaf_hash, verify_consistency, verify_inclusion
from governance.audit.note import NoteKey
from governance.audit.verify import verify_export
from governance.budget.ledger import Ledger
from governance.errors import LogFault
from keys.identity import SigningKey
from tests.support.ledger_and_log import (
    LOG_KEY,
    NOW,
    ORIGIN,
    STUDY,
    audit_log,
    event,
    node_state,
    release,
    run_id,
    terms,
)
from tests.support.reference_merkle import reference_root


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return node_state(tmp_path)


@pytest.fixture
def log(engine: Engine) -> AuditLog:
    return audit_log(engine)


def fill(log: AuditLog, count: int) -> None:
    for number in range(log.size(), log.size() + count):
        log.append(event(number))


def head(log: AuditLog) -> Checkpoint:
    return open_checkpoint(log.checkpoint(), log.verifier)


def test_entries_are_numbered_and_kept_as_hashed(log: AuditLog) -> None:
    assert [log.append(event(n)) for n in range(5)] == [0, 1, 2, 3, 4]
    assert log.size() == 5
    assert [parse_entry(entry)["index"] for entry in log.entries()] == [0, 1, 2, 3, 4]
    assert [parse_entry(entry)["index"] for entry in log.entries(1, 3)] == [1, 2]
    assert {parse_entry(entry)["origin"] for entry in log.entries()} == {ORIGIN}


def test_the_verifier_is_named_by_the_origin(log: AuditLog) -> None:
    assert log.verifier == NoteKey(ORIGIN, LOG_KEY.public)


def test_a_checkpoint_signs_the_root_of_all_entries(log: AuditLog) -> None:
    for size in range(1, 20):
        fill(log, 1)
        leaves = [leaf_hash(entry) for entry in log.entries()]
        assert head(log) == Checkpoint(ORIGIN, size, reference_root(leaves))


def test_the_empty_log_has_a_checkpoint_too(log: AuditLog) -> None:
    assert head(log) == Checkpoint(ORIGIN, 0, hashlib.sha256().digest())
    assert verify_export([], log.checkpoint(), log.verifier).size == 0


def test_two_checkpoints_of_the_same_log_have_the_same_bytes(log: AuditLog) -> None:
    fill(log, 3)
    assert log.checkpoint() == log.checkpoint()
    fill(log, 1)
    assert head(log).size == 4


def test_a_log_continues_after_reopening(tmp_path: Path, log: AuditLog) -> None:
    fill(log, 5)
    earlier = log.checkpoint()
    again = audit_log(node_state(tmp_path))
    fill(again, 6)
    again.require_head(open_checkpoint(earlier, again.verifier))
    assert verify_export(again.export(), again.checkpoint(), again.verifier, seen=[earlier])


def test_an_export_is_read_in_pages(log: AuditLog, engine: Engine) -> None:
    with engine.begin() as connection:
        for number in range(PAGE + 3):
            log.append(event(number), connection)
    assert verify_export(log.export(), log.checkpoint(), log.verifier).size == PAGE + 3
    assert len(list(log.entries(PAGE - 1, PAGE + 2))) == 3


def test_reading_an_export_blocks_no_writer(log: AuditLog) -> None:
    fill(log, 3)
    note = log.checkpoint()
    lines = log.export(end=3)
    next(lines)
    log.append(event(3))
    assert len(list(lines)) == 2
    assert verify_export(log.export(end=3), note, log.verifier).size == 3


def test_proofs_of_the_log_verify(log: AuditLog) -> None:
    fill(log, 13)
    entries = list(log.entries())
    heads = {size: reference_root([leaf_hash(e) for e in entries[:size]]) for size in range(1, 14)}
    for size, root in heads.items():
        for index in range(size):
            proof = log.inclusion_proof(index, size)
            verify_inclusion(index, size, leaf_hash(entries[index]), proof, root)
        proof = log.consistency_proof(size, 13)
        verify_consistency(size, root, 13, heads[13], proof)


@pytest.mark.parametrize(("index", "size"), [(0, 4), (3, 3), (-1, 3), (0, 0)])
def test_no_proof_of_an_entry_that_is_not_there(log: AuditLog, index: int, size: int) -> None:
    fill(log, 3)
    with pytest.raises(LogFault):
        log.inclusion_proof(index, size)


@pytest.mark.parametrize(("size1", "size2"), [(1, 4), (0, 3), (3, 2), (-1, 3)])
def test_no_consistency_proof_from_an_impossible_size(
    log: AuditLog, size1: int, size2: int
) -> None:
    fill(log, 3)
    with pytest.raises(LogFault):
        log.consistency_proof(size1, size2)


def test_an_append_is_kept_only_if_the_caller_s_transaction_commits(
    engine: Engine, log: AuditLog
) -> None:
    fill(log, 3)
    with engine.connect() as outer:
        assert log.append(event(3), outer) == 3
        assert log.size(outer) == 4
        outer.rollback()
    assert log.size() == 3
    fill(log, 4)
    assert verify_export(log.export(), log.checkpoint(), log.verifier).size == 7


def test_charge_and_entry_are_committed_together_or_not_at_all(
    engine: Engine, log: AuditLog
) -> None:
    ledger = Ledger(engine)

    def door(*, commit: bool) -> None:
        with engine.connect() as connection:
            ledger.reserve(
                terms(10**9),
                study=STUDY,
                run=run_id(1),
                mechanisms=[release()],
                now=NOW,
                connection=connection,
            )
            log.append(event(), connection)
            (connection.commit if commit else connection.rollback)()

    door(commit=False)
    assert (ledger.entries(), log.size()) == ([], 0)
    door(commit=True)
    assert (len(ledger.entries()), log.size()) == (1, 1)


def test_a_hundred_threads_append_a_hundred_entries(log: AuditLog) -> None:
    positions: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: positions.append(log.append(event(n))))
        for n in range(100)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(positions) == list(range(100))
    assert verify_export(log.export(), log.checkpoint(), log.verifier).size == 100


def test_an_append_takes_logarithmic_time(log: AuditLog, engine: Engine) -> None:
    statements: list[str] = []

    def count(_c: object, _cursor: object, sql: str, *_: object) -> None:
        statements.append(sql)

    with engine.begin() as connection:
        for number in range(255):
            log.append(event(number), connection)
    listen.listen(engine, "before_cursor_execute", count)
    log.append(event(255))
    assert len(statements) == 7 + 2 * 8


class Stop(Exception):
    """Raised where the process would die."""


def test_a_stop_before_any_statement_leaves_no_part_of_an_entry(tmp_path: Path) -> None:
    for step in range(1, 100):
        engine = node_state(tmp_path / str(step))
        fill(audit_log(engine), 7)
        statements: list[str] = []

        def count(
            _c: object,
            _cursor: object,
            sql: str,
            *_: object,
            s: list[str] = statements,
            n: int = step,
        ) -> None:
            s.append(sql)
            if len(s) == n:
                raise Stop

        def commit(_connection: object, s: list[str] = statements, n: int = step) -> None:
            count(None, None, "COMMIT", s=s, n=n)

        listen.listen(engine, "before_cursor_execute", count)
        listen.listen(engine, "commit", commit)
        try:
            audit_log(engine).append(event(7))
        except Stop:
            engine.dispose()
            again = audit_log(node_state(tmp_path / str(step)))
            assert again.size() == 7
            fill(again, 2)
            assert verify_export(again.export(), again.checkpoint(), again.verifier).size == 9
        else:
            break
    assert statements[0] == "BEGIN IMMEDIATE"
    assert statements[-1] == "COMMIT"
    assert step > 8


def test_a_database_restored_from_a_backup_is_found_by_an_earlier_checkpoint(
    tmp_path: Path,
) -> None:
    engine = node_state(tmp_path / "live")
    log = audit_log(engine)
    fill(log, 5)
    engine.dispose()
    shutil.copytree(tmp_path / "live", tmp_path / "old")
    fill(log, 3)
    checkpoint = log.checkpoint()

    restored = audit_log(node_state(tmp_path / "old"))
    with pytest.raises(LogFault, match="has 5 entries, but 8") as caught:
        restored.require_head(open_checkpoint(checkpoint, restored.verifier))
    assert "rolled back" in caught.value.why

    fill(restored, 1)
    restored.append(event(99))
    fill(restored, 4)
    with pytest.raises(LogFault, match="first 8 entries"):
        restored.require_head(open_checkpoint(checkpoint, restored.verifier))
    forked = restored.checkpoint()
    with pytest.raises(LogFault, match="first 8 entries"):
        verify_export(restored.export(), forked, restored.verifier, seen=[checkpoint])


def raw(folder: Path, *statements: str) -> None:
    """Change the database as a program could that ignores the triggers."""
    connection = sqlite3.connect(folder / "state.db")
    triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
    for (name,) in triggers.fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_nothing_is_signed_for_a_log_that_lost_its_last_entries(
    tmp_path: Path, engine: Engine, log: AuditLog
) -> None:
    fill(log, 9)
    log.checkpoint()
    engine.dispose()
    raw(tmp_path, "DELETE FROM log_entries WHERE position > 6")
    with pytest.raises(LogFault, match="has 7 entries, but 9"):
        log.checkpoint()


@pytest.mark.parametrize("index", range(9))
def test_a_changed_entry_is_named(tmp_path: Path, log: AuditLog, index: int) -> None:
    fill(log, 9)
    note = log.checkpoint()
    change = "CAST(replace(CAST(entry AS TEXT), 'XA', 'XB') AS BLOB)"
    raw(tmp_path, f"UPDATE log_entries SET entry = {change} WHERE position = {index}")  # noqa: S608
    with pytest.raises(LogFault, match=f"Entry {index} "):
        verify_export(log.export(), note, log.verifier)


def test_a_deleted_entry_is_named(tmp_path: Path, log: AuditLog) -> None:
    fill(log, 9)
    note = log.checkpoint()
    raw(tmp_path, "DELETE FROM log_entries WHERE position = 4")
    with pytest.raises(LogFault, match="Entry 4 ") as caught:
        verify_export(log.export(), note, log.verifier)
    assert "at the wrong position" in caught.value.why


def test_a_changed_node_is_found_before_anything_is_signed(tmp_path: Path, log: AuditLog) -> None:
    fill(log, 8)
    log.checkpoint()
    raw(tmp_path, "UPDATE log_nodes SET hash = zeroblob(32) WHERE level = 3")
    fill(log, 1)
    with pytest.raises(LogFault, match="first 8 entries"):
        log.checkpoint()


def test_an_entry_of_another_type_is_reported_as_damage(tmp_path: Path, log: AuditLog) -> None:
    fill(log, 3)
    raw(tmp_path, "UPDATE log_entries SET entry = CAST(entry AS TEXT) WHERE position = 1")
    with pytest.raises(LogFault, match="damaged") as caught:
        list(log.export())
    assert "entry 1 " in caught.value.why


def test_a_missing_node_is_reported_as_damage(tmp_path: Path, log: AuditLog) -> None:
    fill(log, 3)
    raw(tmp_path, "DELETE FROM log_nodes")
    with pytest.raises(LogFault, match="damaged"):
        log.append(event(3))
    assert log.size() == 3


def test_a_checkpoint_of_another_key_or_origin_proves_nothing(log: AuditLog) -> None:
    fill(log, 3)
    other = sign_checkpoint(head(log), SigningKey.generate())
    with pytest.raises(LogFault, match="not signed by"):
        log.require_head(open_checkpoint(other, log.verifier))


def test_an_entry_cannot_be_written_over(engine: Engine, log: AuditLog) -> None:
    fill(log, 2)
    with pytest.raises(IntegrityError, match="append-only"), engine.begin() as connection:
        connection.exec_driver_sql("INSERT OR REPLACE INTO log_entries VALUES (0, x'', x'')")
    assert [parse_entry(entry)["index"] for entry in log.entries()] == [0, 1]


def test_consistency_holds_between_all_heads_ever_signed(log: AuditLog) -> None:
    notes = []
    for step in (1, 2, 3, 5):
        fill(log, step)
        notes.append(log.checkpoint())
    heads = [open_checkpoint(note, log.verifier) for note in notes]
    for one, other in pairwise(heads):
        proof = log.consistency_proof(one.size, other.size)
        verify_consistency(one.size, one.root, other.size, other.root, proof)
