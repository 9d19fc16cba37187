"""The state of every earlier release opens under this one, with nothing lost."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

import client.state.tables
import server.state.tables
from governance.documents.study import Study
from governance.runtime.database import open_database
from protocols.private_sum.coordinator_round import OpenedSum
from tests.support.node_federation import NodeFederation, code_of
from tests.support.schemas import create_at_revision, fill, revisions, rows, tables_with_losses

ROOMS = {"client": client.state.tables.MIGRATIONS, "server": server.state.tables.MIGRATIONS}
EARLIER = [(room, revision) for room, path in ROOMS.items() for revision in revisions(path)[:-1]]


@pytest.mark.parametrize(("room", "revision"), EARLIER)
def test_data_of_an_earlier_release_is_there_after_the_upgrade(
    tmp_path: Path, room: str, revision: str
) -> None:
    old = create_at_revision(tmp_path / "state.db", ROOMS[room], revision)
    before = fill(old)
    assert all(before.values())
    upgraded = open_database(tmp_path / "state.db", ROOMS[room])
    assert tables_with_losses(before, rows(upgraded)) == []
    with upgraded.begin() as connection:
        stored_revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    assert stored_revision == revisions(ROOMS[room])[-1]


def test_a_lost_row_or_table_is_detected(tmp_path: Path) -> None:
    old = create_at_revision(tmp_path / "state.db", ROOMS["client"], "node_0001")
    before = fill(old)
    with old.begin() as connection:
        connection.execute(text("DELETE FROM runs WHERE run_id = 'run_id 1'"))
        connection.execute(text("DROP TABLE settings"))
    assert sorted(tables_with_losses(before, rows(old))) == ["runs", "settings"]


def test_a_run_begun_under_the_first_schema_continues(tmp_path: Path) -> None:
    """The node is upgraded between its contribution and its answer."""
    federation = NodeFederation(tmp_path / "federation")
    study: Study = federation.approved()
    run = federation.ready(study)
    opened = run.contributed(1, "histogram")
    request = opened.contribute_request("DK")
    before = federation.nodes["DK"].handle(request)
    federation.nodes["DK"].parts.engine.dispose()
    as_of_old(federation.home("DK").database)
    node = federation.restart("DK", unsigned=True)
    assert code_of(before) is None
    assert node.handle(request) == before
    for country in run.terms.roster:
        answer = federation.nodes[country].handle(opened.answer_request(country))
        opened.take_answer(country, answer)
    assert isinstance(opened.open(), OpenedSum)
    assert [entry.phase for entry in node.parts.ledger.entries()] == ["cohort-floor", "histogram"]
    federation.close()


def as_of_old(file: Path) -> None:
    """Replace the database by one of the first schema with the same rows, and without log-head."""
    file.with_name("log-head").unlink()
    new = file.with_name("new.db")
    shutil.move(file, new)
    old = create_at_revision(file, client.state.tables.MIGRATIONS, "node_0001")
    with old.connect() as connection:
        connection.exec_driver_sql(f"ATTACH '{new}' AS new")
        for table in names(old):
            columns = ", ".join(f'"{name}"' for name in columns_of(old, table))
            connection.exec_driver_sql(
                f"INSERT INTO {table} ({columns}) SELECT {columns} FROM new.{table}"  # noqa: S608
            )
        connection.commit()
    old.dispose()


def names(engine: Engine) -> list[str]:
    return list(rows(engine))


def columns_of(engine: Engine, table: str) -> list[str]:
    with engine.connect() as connection:
        columns = connection.exec_driver_sql(f"PRAGMA table_info({table})")
        return [row.name for row in columns]
