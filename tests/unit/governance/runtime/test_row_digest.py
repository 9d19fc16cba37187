"""A row's digest names its table, columns and values, and not the columns without a value."""

from pathlib import Path

from sqlalchemy import insert

from client.state.tables import journal, settings
from governance.runtime.row_digest import row_digests
from tests.support.ledger_and_log import NOW, STUDY, node_state, run_id


def test_a_digest_depends_on_every_value_except_those_that_may_change(tmp_path: Path) -> None:
    row = {
        "run_id": run_id(1),
        "round": 1,
        "phase": "answer",
        "request_digest": STUDY,
        "ctx": b"c",
        "created": NOW,
    }
    with node_state(tmp_path).begin() as connection:
        connection.execute(insert(journal).values(row))
        (before,) = row_digests(connection, journal)
        connection.execute(journal.update().values(reply=b"r"))
        (with_reply,) = row_digests(connection, journal)
        assert [*row_digests(connection, journal, without=["reply"])] == [before]
        assert with_reply != before
        connection.execute(insert(settings).values(name="a", value="b"))
        assert [*row_digests(connection, settings, settings.c.name == "c")] == []
