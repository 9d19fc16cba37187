"""The head is signed in the transaction that it covers, and only if the log continues it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, update

from governance.audit.log import AuditLog, LogWriter
from governance.audit.signed_head import Unsigned
from governance.audit.stored_tree import signed_head
from governance.errors import LogFault
from governance.runtime.database import reading
from tests.support.ledger_and_log import LOG_KEY, ORIGIN, audit_log, node_state
from tests.support.ledger_and_log import event as an_event


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return node_state(tmp_path)


@pytest.fixture
def log(engine: Engine) -> AuditLog:
    return audit_log(engine)


def signed_size(log: AuditLog) -> int:
    with reading(log.engine) as connection:
        head = log.signed_head(connection)
        assert [*log.verified_entries(connection)]
    assert head is not None
    return head.size


def test_each_transaction_signs_one_head_over_all_of_its_entries(
    log: AuditLog, engine: Engine
) -> None:
    log.append(an_event(0))
    assert signed_size(log) == 1
    with engine.begin() as connection:
        for number in range(5):
            log.append(an_event(number), connection)
    assert signed_size(log) == 6


def test_a_transaction_that_is_rolled_back_signs_nothing(log: AuditLog, engine: Engine) -> None:
    log.append(an_event(0))
    with engine.connect() as connection:
        transaction = connection.begin()
        log.append(an_event(1), connection)
        transaction.rollback()
    assert signed_size(log) == 1
    log.append(an_event(1))
    assert signed_size(log) == 2


@pytest.mark.parametrize("part", ["DELETE FROM signed_head", "INSERT INTO signed_head"])
def test_a_signature_that_cannot_be_stored_leaves_no_entry_and_locks_nobody_out(
    log: AuditLog, engine: Engine, part: str
) -> None:
    log.append(an_event(0))

    def fail(_c: object, _cursor: object, sql: str, *_: object) -> None:
        if sql.startswith(part):
            raise sqlite3.OperationalError

    event.listen(engine, "before_cursor_execute", fail)
    with pytest.raises(Exception):  # noqa: B017, PT011 (whatever the driver raises)
        log.append(an_event(1))
    event.remove(engine, "before_cursor_execute", fail)
    assert (log.size(), signed_size(log)) == (1, 1)
    log.append(an_event(1))
    assert signed_size(log) == 2


def test_two_processes_with_the_key_sign_in_turn(log: AuditLog, tmp_path: Path) -> None:
    other = audit_log(node_state(tmp_path))
    for number in range(4):
        (log, other)[number % 2].append(an_event(number))
    assert signed_size(log) == signed_size(other) == 4


def test_an_entry_without_the_key_stops_a_log_that_allows_none(
    log: AuditLog, tmp_path: Path
) -> None:
    log.append(an_event(0))
    LogWriter(node_state(tmp_path), ORIGIN).append(an_event(1))
    with pytest.raises(LogFault, match="does not continue the head") as refusal:
        log.append(an_event(2))
    assert "it has 2 entries, and 1 are signed" in refusal.value.why


def test_a_shared_log_signs_the_entries_of_others(engine: Engine, tmp_path: Path) -> None:
    log = AuditLog(engine, ORIGIN, LOG_KEY, unsigned=Unsigned(keyless=True))
    log.append(an_event(0))
    LogWriter(node_state(tmp_path), ORIGIN).append(an_event(1))
    log.sign_rest()
    log.append(an_event(2))
    assert signed_size(log) == 3


def test_a_head_that_was_changed_is_not_continued(log: AuditLog, engine: Engine) -> None:
    log.append(an_event(0))
    with engine.begin() as connection:
        connection.execute(update(signed_head).values(note=b"x"))
    with pytest.raises(LogFault, match="does not continue the head") as refusal:
        log.append(an_event(1))
    assert refusal.value.fix


def test_a_log_that_lost_its_head_is_not_signed_as_if_it_were_new(
    log: AuditLog, engine: Engine, tmp_path: Path
) -> None:
    log.append(an_event(0))
    with closing(sqlite3.connect(tmp_path / "state.db")) as raw, raw:
        raw.execute("DELETE FROM signed_head")
    with pytest.raises(LogFault, match="does not continue the head"):
        log.append(an_event(1))
    former = AuditLog(node_state(tmp_path), ORIGIN, LOG_KEY, unsigned=Unsigned(former=True))
    former.append(an_event(1))
    assert signed_size(former) == 2
