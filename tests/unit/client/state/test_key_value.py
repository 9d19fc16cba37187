"""Small values are stored by name, replaced, deleted, and rolled back with a transaction."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from client.state.key_value import get_value, set_value
from tests.support.ledger_and_log import node_state


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return node_state(tmp_path)


def test_a_value_is_stored_replaced_and_deleted(engine: Engine) -> None:
    with engine.begin() as connection:
        assert get_value(connection, "paused") is None
        set_value(connection, "paused", "one")
        set_value(connection, "other", "kept")
        set_value(connection, "paused", "two")
    with engine.begin() as connection:
        assert get_value(connection, "paused") == "two"
        set_value(connection, "paused", None)
        assert get_value(connection, "paused") is None
        assert get_value(connection, "other") == "kept"


def test_an_empty_text_is_a_value(engine: Engine) -> None:
    with engine.begin() as connection:
        set_value(connection, "note", "")
        assert get_value(connection, "note") == ""


def test_a_failed_transaction_stores_nothing(engine: Engine) -> None:
    with engine.connect() as connection:
        transaction = connection.begin()
        set_value(connection, "paused", "one")
        transaction.rollback()
    with engine.begin() as connection:
        assert get_value(connection, "paused") is None
