"""The officer's key: the pinned one first, then its one announced successor."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from client.documents.officer_key import OfficerKey
from governance.documents.rotation import extended
from governance.errors import DocumentFault
from tests.support.documents import NOW, raw_key
from tests.support.ledger_and_log import node_state

FIRST, SECOND, THIRD = (raw_key(number) for number in (1, 2, 3))


def text(number: int) -> str:
    return raw_key(number).public.to_text()


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with node_state(tmp_path).begin() as opened:
        yield opened


def test_the_first_key_is_the_one_in_the_settings(connection: Connection) -> None:
    assert OfficerKey.load(connection, FIRST.public).current == FIRST.public


def test_the_stored_key_counts_until_another_key_is_pinned(connection: Connection) -> None:
    moved = (
        OfficerKey.load(connection, FIRST.public)
        .with_announced(text(2), None)
        .with_announced_in_force()
    )
    moved.save(connection)
    assert OfficerKey.load(connection, FIRST.public).current == SECOND.public
    assert OfficerKey.load(connection, THIRD.public).current == THIRD.public


def test_an_announced_key_does_not_count_yet(connection: Connection) -> None:
    announced = OfficerKey.load(connection, FIRST.public).with_announced(text(2), None)
    assert announced.current == FIRST.public
    assert announced.with_announced(text(2), None) == announced
    assert announced.with_announced_in_force().current == SECOND.public
    assert announced.with_announced_in_force().announced is None


def test_without_an_announced_key_nothing_changes(connection: Connection) -> None:
    officer = OfficerKey.load(connection, FIRST.public)
    assert officer.with_announced_in_force() == officer


def test_a_second_successor_is_refused(connection: Connection) -> None:
    announced = OfficerKey.load(connection, FIRST.public).with_announced(text(2), None)
    with pytest.raises(DocumentFault, match="second successor"):
        announced.with_announced(text(3), None)
    elsewhere = extended(None, "DK", FIRST, THIRD, NOW)
    with pytest.raises(DocumentFault, match="second successor"):
        announced.with_announced(text(3), elsewhere)


def test_a_successor_of_the_successor_is_accepted(connection: Connection) -> None:
    history = extended(extended(None, "DK", FIRST, SECOND, NOW), "DK", SECOND, THIRD, NOW)
    announced = OfficerKey.load(connection, FIRST.public).with_announced(text(2), None)
    assert (
        announced.with_announced(text(3), history).with_announced_in_force().current == THIRD.public
    )
