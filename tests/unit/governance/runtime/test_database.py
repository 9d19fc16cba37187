import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Engine, Insert, Integer, MetaData, Table, insert, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

import client.state.tables
import server.state.tables
from governance.errors import StorageFault
from governance.runtime import database
from governance.runtime.database import (
    UtcTime,
    fold_log,
    open_database,
    transaction,
)
from tests.support import speed
from tests.support.ledger_and_log import NOW, node_state

PROJECT = Path(__file__).resolve().parents[4]
ROOMS = ("client", "governance", "keys", "protocols", "server")
HEAD = ScriptDirectory(str(client.state.tables.MIGRATIONS)).get_current_head()


@pytest.fixture(autouse=True)
def _migrated_by_alembic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make and check each database here as the programs do."""
    monkeypatch.setattr(database, "_migrate", speed.MIGRATE)


def setting(name: str, value: str = "x") -> Insert:
    return insert(client.state.tables.settings).values(name=name, value=value)


def names(engine: Engine) -> list[str]:
    with engine.begin() as connection:
        return list(connection.scalars(select(client.state.tables.settings.c.name)))


def test_crash_safe_settings_are_in_force(tmp_path: Path) -> None:
    with node_state(tmp_path).begin() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in (
                "journal_mode",
                "synchronous",
                "foreign_keys",
                "secure_delete",
                "journal_size_limit",
                "busy_timeout",
            )
        }
    assert settings == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "secure_delete": 1,
        "journal_size_limit": 8 * 2**20,
        "busy_timeout": 30_000,
    }


def test_deleted_data_is_in_no_file_after_the_wal_checkpoint(tmp_path: Path) -> None:
    engine = node_state(tmp_path)
    secret = b"the pair secrets of a run that has ended"
    with engine.begin() as connection:
        connection.execute(setting("secret", secret.decode()))
    with engine.begin() as connection:
        connection.execute(client.state.tables.settings.delete())
    assert any(secret in file.read_bytes() for file in tmp_path.iterdir())
    fold_log(engine)
    assert not any(secret in file.read_bytes() for file in tmp_path.iterdir())
    assert (tmp_path / "state.db-wal").stat().st_size == 0


def test_a_wal_in_use_is_left_for_later(tmp_path: Path) -> None:
    engine = node_state(tmp_path)
    with engine.begin() as connection:
        connection.execute(setting("kept"))
        fold_log(engine)
    fold_log(engine)
    assert names(engine) == ["kept"]


def test_every_connection_is_configured_not_only_the_first(tmp_path: Path) -> None:
    engine = node_state(tmp_path)
    with engine.connect() as one, engine.connect() as other:
        for each in (one, other):
            raw = each.connection.dbapi_connection
            assert raw is not None
            assert raw.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_database_that_refuses_the_write_ahead_log_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite reports no error if WAL is not possible: it returns the mode that it uses."""

    def keep_journal_mode(raw: sqlite3.Connection, name: str, wanted: object) -> object:
        return "delete" if name == "journal_mode" else wanted

    monkeypatch.setattr(database, "_set_pragma", keep_journal_mode)
    with pytest.raises(StorageFault, match="secured against a crash") as caught:
        node_state(tmp_path)
    assert "local disk" in caught.value.fix


def test_file_and_side_files_belong_to_the_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        node_state(tmp_path / "new")
    finally:
        os.umask(old)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "new").iterdir()}
    assert modes == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700])
def test_looser_permissions_are_refused_with_the_command(tmp_path: Path, mode: int) -> None:
    node_state(tmp_path).dispose()
    (tmp_path / "state.db").chmod(mode)
    with pytest.raises(StorageFault) as caught:
        node_state(tmp_path)
    assert caught.value.fix == f"chmod 600 {tmp_path / 'state.db'}"
    assert f"{mode:04o}" in caught.value.why


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch(0o600)
    (tmp_path / "state.db").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageFault, match="not a file"):
        node_state(tmp_path)
    assert (tmp_path / "elsewhere").stat().st_size == 0


def test_a_pipe_or_folder_is_no_database(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "state.db", 0o600)
    with pytest.raises(StorageFault, match="not a file"):
        node_state(tmp_path)
    with pytest.raises(StorageFault, match="not a file"):
        open_database(tmp_path, client.state.tables.MIGRATIONS)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"patients,age\n" * 1000)
    (tmp_path / "state.db").chmod(0o600)
    with pytest.raises(StorageFault, match="This file is not a database"):
        node_state(tmp_path)


def test_a_server_url_is_refused_with_a_clear_error() -> None:
    with pytest.raises(StorageFault, match="SQLite only"):
        open_database("postgresql://user@host/name", client.state.tables.MIGRATIONS)


def test_a_path_may_be_text(tmp_path: Path) -> None:
    open_database(str(tmp_path / "text.db"), client.state.tables.MIGRATIONS)
    assert (tmp_path / "text.db").exists()


def test_opening_again_keeps_what_was_written(tmp_path: Path) -> None:
    engine = node_state(tmp_path)
    with engine.begin() as connection:
        connection.execute(setting("kept"))
    engine.dispose()
    assert names(node_state(tmp_path)) == ["kept"]


def test_opening_again_in_one_process_lets_no_other_process_delete_the_log(tmp_path: Path) -> None:
    """To close a file ends the process's locks on it, and SQLite elsewhere then deletes the log."""
    engine = node_state(tmp_path)
    with engine.begin() as connection:
        connection.execute(setting("first"))
    node_state(tmp_path)
    read_elsewhere(tmp_path)
    with engine.begin() as connection:
        connection.execute(setting("second"))
    assert read_elsewhere(tmp_path) == "first second"


def read_elsewhere(folder: Path) -> str:
    """Return the names of the settings as another process reads them, and then closes the file."""
    program = (
        "import contextlib, sqlite3, sys\n"
        "with contextlib.closing(sqlite3.connect(sys.argv[1])) as database:\n"
        "    rows = database.execute('SELECT name FROM settings ORDER BY rowid').fetchall()\n"
        "print(*(name for (name,) in rows))"
    )
    command = [sys.executable, "-c", program, str(folder / "state.db")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    engine = node_state(tmp_path)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'node_9999'"))
    engine.dispose()
    with pytest.raises(StorageFault, match="newer version") as caught:
        node_state(tmp_path)
    assert "node_9999" in caught.value.why
    with sqlite3.connect(tmp_path / "state.db") as raw:
        assert raw.execute("SELECT version_num FROM alembic_version").fetchall() == [("node_9999",)]
    raw.close()


def test_the_coordinator_s_database_is_refused_by_a_node(tmp_path: Path) -> None:
    open_database(tmp_path / "state.db", server.state.tables.MIGRATIONS).dispose()
    with pytest.raises(StorageFault, match="newer version"):
        node_state(tmp_path)


def test_a_failing_migration_leaves_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "migrations"
    shutil.copytree(
        client.state.tables.MIGRATIONS, broken, ignore=shutil.ignore_patterns("__pycache__")
    )
    (broken / "versions" / "next.py").write_text(
        "from alembic import op\n"
        f"revision, down_revision = 'node_next', '{HEAD}'\n"
        "def upgrade():\n"
        "    op.execute('CREATE TABLE half (id INTEGER)')\n"
        "    op.execute('CREATE TABLE half (id INTEGER)')\n"
    )
    with pytest.raises(StorageFault):
        open_database(tmp_path / "state.db", broken)
    with sqlite3.connect(tmp_path / "state.db") as raw:
        assert raw.execute("SELECT name FROM sqlite_master").fetchall() == []
    raw.close()


def test_an_upgrade_runs_only_what_is_missing(tmp_path: Path) -> None:
    engine = node_state(tmp_path)
    with engine.begin() as connection:
        connection.execute(setting("before"))
    engine.dispose()
    later = tmp_path / "migrations"
    shutil.copytree(
        client.state.tables.MIGRATIONS, later, ignore=shutil.ignore_patterns("__pycache__")
    )
    (later / "versions" / "next.py").write_text(
        "from alembic import op\n"
        f"revision, down_revision = 'node_next', '{HEAD}'\n"
        "def upgrade():\n"
        "    op.execute('CREATE TABLE more (id INTEGER)')\n"
    )
    upgraded = open_database(tmp_path / "state.db", later)
    assert names(upgraded) == ["before"]
    with upgraded.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM more")) == 0


def test_migrations_are_part_of_the_packages(tmp_path: Path) -> None:
    """As in an installation elsewhere: no alembic.ini, project folder or this directory."""
    for room in ROOMS:
        shutil.copytree(
            PROJECT / room, tmp_path / "site" / room, ignore=shutil.ignore_patterns("__pycache__")
        )
    script = (
        "import client.state.tables, server.state.tables, sys\n"
        "from governance.runtime.database import open_database\n"
        "for room in (client.state.tables, server.state.tables):\n"
        "    assert str(room.MIGRATIONS).startswith(sys.argv[1])\n"
        "    open_database(sys.argv[1] + '/' + room.__name__, room.MIGRATIONS)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path)],
        env={"PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1"},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_transaction_holds_the_write_lock_from_its_start(tmp_path: Path) -> None:
    engine = node_state(tmp_path)
    other = sqlite3.connect(tmp_path / "state.db", timeout=0)
    with engine.begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.close()


def test_a_locked_database_gives_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node_state(tmp_path).dispose()
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    holder = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageFault, match="Another process"):
        node_state(tmp_path)
    holder.close()


def test_a_full_disk_is_a_storage_fault_and_changes_nothing(tmp_path: Path) -> None:
    engine = node_state(tmp_path)
    with engine.begin() as connection:
        connection.execute(setting("before"))

    def fill() -> None:
        with engine.begin() as connection:
            connection.execute(setting("first"))
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
            connection.execute(setting("large", "x" * 1_000_000))

    with pytest.raises(StorageFault, match="disk is full") as caught:
        fill()
    assert "free some space" in caught.value.fix
    assert names(engine) == ["before"]


def test_a_programming_error_is_not_converted(tmp_path: Path) -> None:
    engine = node_state(tmp_path)
    with engine.begin() as connection:
        connection.execute(setting("twice"))
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(setting("twice"))
    with pytest.raises(OperationalError), engine.begin() as connection:
        connection.execute(text("SELECT * FROM no_such_table"))


def test_a_joined_transaction_is_kept_only_if_the_caller_s_commits(tmp_path: Path) -> None:
    engine = node_state(tmp_path)
    outer = engine.connect()
    with transaction(engine, outer) as joined:
        joined.execute(setting("inner"))
    outer.rollback()
    outer.close()
    assert names(engine) == []
    with transaction(engine) as connection:
        connection.execute(setting("own"))
    assert names(engine) == ["own"]


def test_threads_may_open_one_database_at_once(tmp_path: Path) -> None:
    faults: list[BaseException] = []

    def work(number: int) -> None:
        try:
            engine = node_state(tmp_path)
            with engine.begin() as connection:
                connection.execute(setting(str(number)))
            engine.dispose()
        except BaseException as fault:  # noqa: BLE001  passed to the main thread
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(names(node_state(tmp_path))) == 16


moments = Table("moments", MetaData(), Column("id", Integer), Column("at", UtcTime))


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5, minutes=30))])
def test_times_are_read_back_as_the_same_moment_in_utc(tmp_path: Path, zone: timezone) -> None:
    engine = node_state(tmp_path)
    moment = datetime(2026, 3, 1, 4, 5, 6, 789, tzinfo=zone)
    with engine.begin() as connection:
        moments.metadata.create_all(connection)
        connection.execute(insert(moments).values(id=1, at=moment))
        (moments_read,) = connection.scalars(select(moments.c.at))
    assert moments_read == moment
    assert moments_read.tzinfo is UTC


def test_times_are_compared_as_moments(tmp_path: Path) -> None:
    engine = node_state(tmp_path)
    steps = [NOW + timedelta(microseconds=n) for n in (0, 1, 999_999, 1_000_000)]
    with engine.begin() as connection:
        moments.metadata.create_all(connection)
        connection.execute(insert(moments), [{"id": n, "at": at} for n, at in enumerate(steps)])
        later = connection.scalars(select(moments.c.id).where(moments.c.at > steps[1]))
        assert list(later) == [2, 3]


def test_a_time_without_zone_is_refused(tmp_path: Path) -> None:
    engine = node_state(tmp_path)
    with engine.begin() as connection:
        moments.metadata.create_all(connection)
    with pytest.raises(StorageFault, match="zone"), engine.begin() as connection:
        connection.execute(insert(moments).values(id=1, at=NOW.replace(tzinfo=None)))
