"""Inserted rows cannot change, and the log's rows are inserted in order."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.exc import IntegrityError

from governance.runtime.append_only import create_log, keep, not_next


@pytest.fixture
def connection() -> Iterator[sa.Connection]:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as opened:
        op = Operations(MigrationContext.configure(opened))
        create_log(op)
        op.create_table("numbers", sa.Column("n", sa.Integer, primary_key=True))
        keep(op, "numbers", not_next("numbers", "n"))
        opened.execute(sa.text("INSERT INTO numbers VALUES (0)"))
        opened.execute(sa.text("INSERT INTO log_entries VALUES (0, x'01', x'02')"))
        opened.execute(sa.text("INSERT INTO log_nodes VALUES (1, 0, x'03')"))
        opened.execute(sa.text("INSERT INTO log_heads VALUES (1, x'04')"))
        yield opened
    engine.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE numbers SET n = 1",
        "DELETE FROM numbers",
        "INSERT INTO numbers VALUES (2)",
        "INSERT OR REPLACE INTO numbers VALUES (0)",
        "UPDATE log_entries SET entry = x'ff'",
        "DELETE FROM log_entries",
        "INSERT OR REPLACE INTO log_entries VALUES (0, x'ff', x'02')",
        "INSERT INTO log_entries VALUES (2, x'01', x'02')",
        "UPDATE log_nodes SET hash = x'ff'",
        "INSERT OR REPLACE INTO log_nodes VALUES (1, 0, x'ff')",
        "DELETE FROM log_heads",
        "INSERT OR REPLACE INTO log_heads VALUES (1, x'ff')",
        "INSERT INTO log_heads VALUES (0, x'ff')",
    ],
)
def test_no_row_is_changed_removed_or_replaced(connection: sa.Connection, statement: str) -> None:
    with pytest.raises(IntegrityError, match="is append-only"):
        connection.execute(sa.text(statement))


def test_the_next_rows_are_accepted(connection: sa.Connection) -> None:
    connection.execute(sa.text("INSERT INTO numbers VALUES (1), (2)"))
    connection.execute(sa.text("INSERT INTO log_entries VALUES (1, x'01', x'02')"))
    connection.execute(sa.text("INSERT INTO log_nodes VALUES (1, 1, x'03')"))
    connection.execute(sa.text("INSERT INTO log_heads VALUES (7, x'04')"))
    assert connection.execute(sa.text("SELECT count(*) FROM numbers")).scalar() == 3
