"""Kill at each step of charge and log: both or none are stored, and both can be repeated."""

import shutil
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy import event as listen

import client.state.tables
import server.state.tables
from governance.audit.checkpoint import open_checkpoint
from governance.audit.verify import verify_export
from governance.budget.ledger import Ledger
from governance.runtime import database
from governance.runtime.database import open_database
from tests.support import speed
from tests.support.kill_at_statement import arm, killed_at
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
from tests.support.schemas import create_at_revision, fill, revisions, rows, tables_with_losses

pytestmark = pytest.mark.fault
SCHEDULE = [release(), release(phase="evaluate", rounds=1)]


def charge_and_log(engine: Engine, run: int) -> None:
    with engine.begin() as connection:
        Ledger(engine).reserve(
            terms(10**9),
            study=STUDY,
            run=run_id(run),
            mechanisms=SCHEDULE,
            now=NOW,
            connection=connection,
        )
        audit_log(engine).append(event(run), connection)


def test_a_kill_at_any_step_leaves_both_charge_and_log_entry_or_neither(
    tmp_path: Path,
) -> None:
    engine = node_state(tmp_path)
    for run in range(7):
        charge_and_log(engine, run)
    checkpoint = audit_log(engine).checkpoint()
    engine.dispose()
    kills, standing = 0, 7
    for step in count(1):

        def work(step: int = step) -> None:
            own = node_state(tmp_path)
            arm(own, step)
            charge_and_log(own, 50)

        if not killed_at(step, work):
            break
        kills += 1
        engine = node_state(tmp_path)
        entry_count = len(Ledger(engine).entries(run=run_id(50)))
        assert (entry_count, audit_log(engine).size()) == (0, standing)
        audit_log(engine).require_head(open_checkpoint(checkpoint, audit_log(engine).verifier))
        engine.dispose()
    assert kills > 20
    engine = node_state(tmp_path)
    assert len(Ledger(engine).entries(run=run_id(50))) == 2
    log = audit_log(engine)
    assert verify_export(log.export(), log.checkpoint(), log.verifier, seen=[checkpoint]).size == 8


def test_the_database_opens_after_a_kill_at_any_step_of_the_first_migration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_migrate", speed.MIGRATE)
    for step in range(1, 60, 3):
        folder = tmp_path / str(step)

        def work(folder: Path = folder, step: int = step) -> None:
            _migrate_and_die(folder, step)

        assert killed_at(step, work)
        engine = node_state(folder)
        charge_and_log(engine, 1)
        assert audit_log(engine).size() == 1
        engine.dispose()


@pytest.mark.parametrize(
    "migrations",
    [client.state.tables.MIGRATIONS, server.state.tables.MIGRATIONS],
    ids=["node", "coordinator"],
)
def test_a_kill_at_any_step_of_an_upgrade_loses_nothing(tmp_path: Path, migrations: Path) -> None:
    first = create_at_revision(
        tmp_path / "origin" / "state.db", migrations, revisions(migrations)[0]
    )
    before = fill(first)
    for step in count(1, 2):
        folder = tmp_path / str(step)
        shutil.copytree(tmp_path / "origin", folder)

        def work(folder: Path = folder, step: int = step) -> None:
            _migrate_and_die(folder, step, migrations)

        died = killed_at(step, work)
        engine = open_database(folder / "state.db", migrations)
        assert tables_with_losses(before, rows(engine)) == []
        engine.dispose()
        if not died:
            assert step > 10
            return


def _migrate_and_die(
    folder: Path, step: int, migrations: Path = client.state.tables.MIGRATIONS
) -> None:
    def armed(engine: Engine) -> None:
        arm(engine, step)

    listen.listen(Engine, "engine_connect", lambda connection: armed(connection.engine), once=True)
    open_database(folder / "state.db", migrations)
