from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from client.records.quality_report import QualityReport
from client.settings import NodeSettings
from client.state.opt_out_confirmations import OptOutConfirmations, unconfirmed_sentence
from client.state.tables import MIGRATIONS
from governance.runtime.database import open_database, transaction

NOW = datetime(2026, 9, 1, tzinfo=UTC)
SECRET = bytes(32)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_database(tmp_path / "state.db", MIGRATIONS)


def report(*unmatched: str, matched: int = 1) -> QualityReport:
    return QualityReport(rows=100, opted_out=matched, unknown_opt_outs=unmatched, columns=())


def national(settings: NodeSettings) -> NodeSettings:
    return settings.model_copy(update={"opt_out_covers": "nation"})


def test_each_entry_is_a_fault_until_it_is_confirmed(
    engine: Engine, settings: NodeSettings
) -> None:
    confirmations = OptOutConfirmations(engine, SECRET)
    assert confirmations.unconfirmed(settings, report()) == ()
    assert confirmations.unconfirmed(settings, report("a", "b")) == ("a", "b")
    with transaction(engine) as connection:
        confirmations.confirm(["a"], NOW, connection)
        confirmations.confirm(["a"], NOW, connection)
    assert confirmations.unconfirmed(settings, report("a", "b")) == ("b",)
    assert confirmations.unconfirmed(settings, report("a", "c")) == ("c",)


def test_no_entry_can_be_read_from_the_database(engine: Engine, tmp_path: Path) -> None:
    confirmations = OptOutConfirmations(engine, SECRET)
    with transaction(engine) as connection:
        confirmations.confirm(["CPR-120461-7"], NOW, connection)
    engine.dispose()
    assert b"CPR-120461-7" not in (tmp_path / "state.db").read_bytes()


def test_another_secret_confirms_nothing(engine: Engine, settings: NodeSettings) -> None:
    with transaction(engine) as connection:
        OptOutConfirmations(engine, SECRET).confirm(["a"], NOW, connection)
    assert OptOutConfirmations(engine, b"1" * 32).unconfirmed(settings, report("a")) == ("a",)


def test_a_national_list_is_confirmed_once(engine: Engine, settings: NodeSettings) -> None:
    confirmations, settings = OptOutConfirmations(engine, SECRET), national(settings)
    assert confirmations.unconfirmed(settings, report("a", matched=10)) == ("a",)
    with transaction(engine) as connection:
        confirmations.confirm_nation(report("a", matched=10), connection)
    assert confirmations.unconfirmed(settings, report("a", "b", "c", matched=9)) == ()
    assert confirmations.unconfirmed(settings, report("a", "b", matched=4)) == ("a", "b")
    assert confirmations.unconfirmed(settings, report("a", "b", matched=0)) == ("a", "b")


def test_the_sentence_counts_and_names_nobody() -> None:
    assert unconfirmed_sentence(1) == "1 entry of the opt-out list matches no patient"
    assert unconfirmed_sentence(2) == "2 entries of the opt-out list match no patient"
