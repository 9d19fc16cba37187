"""Which session acts for each node is known after a restart of the coordinator."""

from pathlib import Path

from governance.runtime.database import open_database
from server.membership.acting_sessions import ActingSession, ActingSessions
from server.state.tables import MIGRATIONS

FIRST = ActingSession("AT", 4, b"k" * 32, (b"f" * 32,))
OTHER = ActingSession("BE", 1, b"o" * 32, ())


def test_a_session_replaces_the_former_one_of_its_country(tmp_path: Path) -> None:
    database = tmp_path / "state.db"
    sessions = ActingSessions(open_database(database, MIGRATIONS))
    second = ActingSession("AT", 5, b"n" * 32, (b"f" * 32, b"k" * 32), disputed=True)
    for session in (FIRST, OTHER, second):
        sessions.save(session)
    again = ActingSessions(open_database(database, MIGRATIONS))
    assert sorted(again.load(), key=lambda each: each.country) == [second, OTHER]


def test_a_forgotten_session_is_gone(tmp_path: Path) -> None:
    sessions = ActingSessions(open_database(tmp_path / "state.db", MIGRATIONS))
    sessions.save(FIRST)
    sessions.forget("AT")
    sessions.forget("AT")
    assert sessions.load() == []
