"""The coordinator's log is checked at start; only entries of rounds may follow its signed head."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from governance.audit.events import EventKind
from governance.audit.log import LogWriter
from governance.audit.log_key import LogKey
from governance.errors import LogFault, StorageFault
from governance.runtime.database import open_database
from server.state.signed_log import open_log, take_over
from server.state.tables import MIGRATIONS
from tests.support.ledger_and_log import LOG_KEY, NOW, ORIGIN, event


def start(folder: Path, key: LogKey) -> int:
    engine = open_database(folder / "state.db", MIGRATIONS)
    try:
        log = open_log(engine, ORIGIN, key)
        take_over(log, NOW)
        return log.size()
    finally:
        engine.dispose()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    engine = open_database(tmp_path / "state.db", MIGRATIONS)
    log = open_log(engine, ORIGIN, LogKey(LOG_KEY))
    for number in range(5):
        log.append(event(number, kind=EventKind.COORDINATOR_STARTED))
    engine.dispose()
    return tmp_path


def append_without_key(folder: Path, kind: EventKind) -> None:
    engine = open_database(folder / "state.db", MIGRATIONS)
    LogWriter(engine, ORIGIN).append(event(9, kind=kind))
    engine.dispose()


def test_rounds_of_the_server_app_may_follow_the_head(folder: Path) -> None:
    append_without_key(folder, EventKind.ROUND_OPENED)
    assert start(folder, LogKey(LOG_KEY)) == 6


def test_nothing_else_may_follow_the_head(folder: Path) -> None:
    append_without_key(folder, EventKind.RESULT_RELEASED)
    with pytest.raises(LogFault, match="not as this program signed it") as refusal:
        start(folder, LogKey(LOG_KEY))
    assert "entry 5 was never signed" in refusal.value.why


@pytest.mark.parametrize(
    "edit",
    [
        "DROP TRIGGER log_entries_delete; DELETE FROM log_entries WHERE position = 4",
        "DROP TRIGGER log_nodes_update; UPDATE log_nodes SET hash = x'00'",
        "DELETE FROM signed_head",
        "UPDATE signed_head SET note = x'00'",
        "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM rounds; END",
    ],
)
def test_an_edited_log_is_refused(folder: Path, edit: str) -> None:
    with closing(sqlite3.connect(folder / "state.db")) as raw:
        raw.executescript(edit)
    with pytest.raises((LogFault, StorageFault)) as refusal:
        start(folder, LogKey(LOG_KEY))
    assert refusal.value.fix


def test_the_log_of_the_former_version_is_signed_once_and_says_so(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "state.db")) as raw, raw:
        raw.execute("DELETE FROM signed_head")
    assert start(folder, LogKey(LOG_KEY, signs_heads=False)) == 6
    assert start(folder, LogKey(LOG_KEY)) == 6
    engine = open_database(folder / "state.db", MIGRATIONS)
    assert b'"kind":"state-signed"' in [*open_log(engine, ORIGIN, LogKey(LOG_KEY)).entries()][-1]
    engine.dispose()
