"""Migrations make exactly the declared tables, and append-only rows cannot change."""

import sqlite3
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, Table, delete, insert, text, update
from sqlalchemy.exc import IntegrityError

import client.state.tables
import server.state.tables
from governance.audit.stored_tree import LOG_TABLES, log_entries, log_heads, log_nodes
from governance.budget.ledger import LEDGER_TABLES, Ledger, ledger_entries
from governance.runtime.database import open_database
from tests.support.ledger_and_log import (
    NOW,
    STUDY,
    audit_log,
    event,
    node_state,
    release,
    run_id,
    terms,
)

KEPT = [ledger_entries, log_entries, log_nodes, log_heads]


DECLARED = {
    client.state.tables: [client.state.tables.NODE_TABLES, LEDGER_TABLES, LOG_TABLES],
    server.state.tables: [server.state.tables.COORDINATOR_TABLES, LOG_TABLES],
}


@pytest.mark.parametrize("room", DECLARED, ids=lambda room: room.__name__)
def test_migrations_make_exactly_the_declared_tables(tmp_path: Path, room: ModuleType) -> None:
    engine = open_database(tmp_path / "state.db", room.MIGRATIONS)
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        declared: Any = list(DECLARED[room])  # the annotation of Alembic is too narrow
        assert compare_metadata(context, declared) == []


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = node_state(tmp_path)
    log = audit_log(engine)
    for number in range(4):
        log.append(event(number))
    log.checkpoint()
    Ledger(engine).reserve(
        terms(10**9), study=STUDY, run=run_id(1), mechanisms=[release()], now=NOW
    )
    return engine


@pytest.mark.parametrize("table", KEPT, ids=lambda table: table.name)
def test_append_only_rows_can_be_neither_changed_nor_deleted(engine: Engine, table: Table) -> None:
    column = list(table.c)[-1]
    for forbidden in (update(table).values({column: column}), delete(table)):
        with pytest.raises(IntegrityError, match="append-only"), engine.begin() as connection:
            connection.execute(forbidden)


@pytest.mark.parametrize("table", KEPT, ids=lambda table: table.name)
def test_append_only_rows_cannot_be_replaced(engine: Engine, table: Table) -> None:
    with engine.begin() as connection:
        before = connection.execute(table.select()).all()
    with pytest.raises(IntegrityError, match="append-only"), engine.begin() as connection:
        connection.execute(insert(table).prefix_with("OR REPLACE"), dict(before[0]._mapping))
    with engine.begin() as connection:
        assert connection.execute(table.select()).all() == before


@pytest.mark.parametrize("table", [ledger_entries, log_entries], ids=lambda table: table.name)
def test_positions_have_no_gap(engine: Engine, table: Table) -> None:
    with engine.begin() as connection:
        row = dict(connection.execute(table.select()).mappings().first() or {})
    row["position"] = 99
    with pytest.raises(IntegrityError, match="append-only"), engine.begin() as connection:
        connection.execute(insert(table).values(row))


def test_triggers_apply_to_any_program_that_opens_the_file(engine: Engine, tmp_path: Path) -> None:
    engine.dispose()
    with sqlite3.connect(tmp_path / "state.db") as raw:
        for statement in ("DELETE FROM ledger_entries", "UPDATE log_entries SET entry = x'00'"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                raw.execute(statement)
    raw.close()


def test_a_head_is_newer_than_every_other(engine: Engine) -> None:
    with pytest.raises(IntegrityError, match="append-only"), engine.begin() as connection:
        connection.execute(insert(log_heads).values(size=3, note=b"x"))


def test_one_run_enters_the_journal_once(engine: Engine) -> None:
    row = {
        "run_id": run_id(1),
        "round": 0,
        "phase": "contribute",
        "request_digest": STUDY,
        "ctx": b"c",
        "reply": b"r",
        "created": NOW,
    }
    with engine.begin() as connection:
        connection.execute(insert(client.state.tables.journal).values(row))
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(insert(client.state.tables.journal).values({**row, "reply": b"other"}))


def test_revisions_are_named_in_the_database(engine: Engine) -> None:
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "node_0007"
