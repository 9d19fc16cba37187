"""One reply for each place of a run, the same bytes for the same request."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from client.state.reply_journal import Place, ReplyJournal, phase_name
from client.state.tables import runs
from governance.runtime.database import LARGEST_IDLE_LOG, transaction
from protocols.errors import ReasonCode, Refusal
from protocols.proto.round_pb2 import PHASE_ANSWER, PHASE_BUNDLE, PHASE_CONTRIBUTE
from tests.support.ledger_and_log import node_state

NOW = datetime(2026, 9, 1, tzinfo=UTC)
PLACE = Place("ab" * 16, 3, "contribute")


def journal_with_reply(
    folder: Path, place: Place = PLACE, request_bytes: bytes = b"asked"
) -> ReplyJournal:
    engine = node_state(folder)
    replies = ReplyJournal(engine)
    with transaction(engine) as connection:
        replies.write(
            place, request_bytes, context=b"c" * 32, reply=b"said", now=NOW, connection=connection
        )
    return replies


def test_a_free_place_has_no_reply(tmp_path: Path) -> None:
    assert ReplyJournal(node_state(tmp_path)).repeated(PLACE, b"asked") is None


def test_the_same_request_gets_the_same_bytes(tmp_path: Path) -> None:
    assert journal_with_reply(tmp_path).repeated(PLACE, b"asked") == b"said"


@pytest.mark.parametrize("request_bytes", [b"", b"aske", b"asked ", b"ASKED"])
def test_any_other_request_is_refused(tmp_path: Path, request_bytes: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        journal_with_reply(tmp_path).repeated(PLACE, request_bytes)
    assert refusal.value.code is ReasonCode.STALE


@pytest.mark.parametrize(
    "other",
    [
        Place("cd" * 16, 3, "contribute"),
        Place("ab" * 16, 4, "contribute"),
        Place("ab" * 16, 3, "answer"),
    ],
)
def test_a_reply_counts_for_its_place_only(tmp_path: Path, other: Place) -> None:
    assert journal_with_reply(tmp_path).repeated(other, b"asked") is None


def forget(reply_journal: ReplyJournal, run: str, before: int | None = None) -> None:
    with transaction(reply_journal._engine) as connection:
        reply_journal.forget(run, connection, before=before)


def test_an_erased_reply_is_refused_and_its_place_stays_used(tmp_path: Path) -> None:
    replies = journal_with_reply(tmp_path)
    forget(replies, PLACE.run)
    for request_bytes in (b"asked", b"other"):
        with pytest.raises(Refusal) as refusal:
            replies.repeated(PLACE, request_bytes)
        assert refusal.value.code is ReasonCode.STALE
    with pytest.raises(IntegrityError), transaction(replies._engine) as connection:
        replies.write(PLACE, b"asked", context=b"c", reply=b"r", now=NOW, connection=connection)
    assert replies.context(PLACE) == b"c" * 32


def test_only_replies_of_earlier_rounds_of_the_run_are_erased(tmp_path: Path) -> None:
    replies = journal_with_reply(tmp_path)
    other = Place("cd" * 16, 1, "contribute")
    with transaction(replies._engine) as connection:
        replies.write(other, b"asked", context=b"c", reply=b"said", now=NOW, connection=connection)
    forget(replies, PLACE.run, before=PLACE.round)
    assert replies.repeated(PLACE, b"asked") == b"said"
    forget(replies, PLACE.run, before=PLACE.round + 1)
    with pytest.raises(Refusal):
        replies.repeated(PLACE, b"asked")
    assert replies.repeated(other, b"asked") == b"said"


def test_replies_of_runs_that_ended_long_ago_are_erased(tmp_path: Path) -> None:
    replies = journal_with_reply(tmp_path)
    ended = {"run_id": PLACE.run, "study": "s", "created": NOW, "ended": NOW}
    with transaction(replies._engine) as connection:
        connection.execute(insert(runs).values(ended))
    replies.forget_ended(NOW)
    assert replies.repeated(PLACE, b"asked") == b"said"
    replies.forget_ended(NOW + timedelta(microseconds=1))
    with pytest.raises(Refusal):
        replies.repeated(PLACE, b"asked")


def test_five_hundred_rounds_leave_a_small_file(tmp_path: Path) -> None:
    """Each reply has 100 kB; a few hundred bytes of a round stay afterwards."""
    replies = ReplyJournal(node_state(tmp_path))
    for number in range(1, 501):
        place = Place(PLACE.run, number, "contribute")
        with transaction(replies._engine) as connection:
            replies.write(
                place, b"asked", context=b"c", reply=bytes(100_000), now=NOW, connection=connection
            )
            replies.forget(place.run, connection, before=number - 1)
    sizes = {file.name: file.stat().st_size for file in tmp_path.iterdir()}
    assert sizes["state.db"] < 2_000_000
    assert sizes["state.db-wal"] < 2 * LARGEST_IDLE_LOG


def test_a_place_is_written_once(tmp_path: Path) -> None:
    replies = journal_with_reply(tmp_path)
    with pytest.raises(IntegrityError), transaction(replies._engine) as connection:
        replies.write(PLACE, b"x", context=b"c", reply=b"other", now=NOW, connection=connection)
    assert replies.repeated(PLACE, b"asked") == b"said"


def test_a_reply_is_stored_only_if_its_transaction_commits(tmp_path: Path) -> None:
    engine = node_state(tmp_path)
    replies = ReplyJournal(engine)

    def broken() -> None:
        with transaction(engine) as connection:
            replies.write(PLACE, b"x", context=b"c", reply=b"r", now=NOW, connection=connection)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert replies.repeated(PLACE, b"x") is None


def test_the_context_of_a_reply_is_stored(tmp_path: Path) -> None:
    replies = journal_with_reply(tmp_path)
    assert replies.context(PLACE) == b"c" * 32
    assert replies.context(Place("ab" * 16, 9, "contribute")) is None


def test_the_time_of_the_last_reply_of_a_run_is_stored(tmp_path: Path) -> None:
    replies = journal_with_reply(tmp_path)

    with transaction(replies._engine) as connection:
        assert replies.latest("ab" * 16, connection) == NOW
        assert replies.latest("cd" * 16, connection) is None


def test_phases_have_readable_names() -> None:
    phases = [PHASE_BUNDLE, PHASE_CONTRIBUTE, PHASE_ANSWER]
    assert [phase_name(phase) for phase in phases] == ["bundle", "contribute", "answer"]
