"""The outcome of a restoration is stored for `status`, with what it had to assume."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from client.state.key_value import set_value
from client.state.restored import RESTORED, Restored, last_restored
from tests.support.ledger_and_log import node_state

DONE = Restored(at="2026-11-20T10:00:00+00:00", entries=40, before=55, ended=2, assumed=("a", "a"))


def test_before_any_restoration_there_is_nothing(tmp_path: Path) -> None:
    assert last_restored(node_state(tmp_path)) is None


def test_the_stored_outcome_is_returned(tmp_path: Path) -> None:
    engine = node_state(tmp_path)
    with engine.begin() as connection:
        set_value(connection, RESTORED, json.dumps(asdict(DONE)))
    assert last_restored(engine) == DONE


@pytest.mark.parametrize(("before", "words"), [(55, "at least 55"), (None, "an unknown number")])
def test_the_sentence_names_every_number(before: int | None, words: str) -> None:
    sentence = Restored(DONE.at, DONE.entries, before, DONE.ended, DONE.assumed).sentence()
    assert "40 log entries" in sentence
    assert words in sentence
    assert "2 live runs ended" in sentence
    assert "2 runs that the copy" in sentence
