"""Rows that change are covered by a digest; what others have changed is not taken over."""

from pathlib import Path

import pytest
from sqlalchemy import delete, insert

from client.state.covered_rows import COVERED, OPT_OUTS, changing
from client.state.tables import opt_out_confirmations
from governance.errors import LogFault
from governance.runtime.database import transaction
from tests.support.ledger_and_log import NOW, node_state


def row(entry: str) -> dict[str, object]:
    return {"entry": entry, "confirmed": NOW}


def test_no_rows_need_no_digest(tmp_path: Path) -> None:
    with transaction(node_state(tmp_path)) as connection:
        for rows in COVERED:
            rows.require_as_covered(connection)


def test_rows_that_were_changed_inside_the_block_are_covered(tmp_path: Path) -> None:
    with transaction(node_state(tmp_path)) as connection:
        for entry in ("a", "b"):
            with changing(connection, OPT_OUTS):
                connection.execute(insert(opt_out_confirmations), [row(entry)])
            OPT_OUTS.require_as_covered(connection)
        with changing(connection, OPT_OUTS):
            connection.execute(delete(opt_out_confirmations))
        OPT_OUTS.require_as_covered(connection)


def test_rows_that_somebody_else_changed_are_reported_and_never_taken_over(tmp_path: Path) -> None:
    engine = node_state(tmp_path)
    with transaction(engine) as connection:
        connection.execute(insert(opt_out_confirmations), [row("of another")])
    for _ in range(2):
        with (
            pytest.raises(LogFault, match="not as this program signed it") as fault,
            transaction(engine) as connection,
            changing(connection, OPT_OUTS),
        ):
            connection.execute(insert(opt_out_confirmations), [row("mine")])
        assert "confirmed entries of the opt-out list" in fault.value.why
