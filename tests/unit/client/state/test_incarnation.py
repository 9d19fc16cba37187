"""Starts are numbered on disk, and the secret of a start is not."""

import hashlib
from pathlib import Path

from client.state.incarnation import INCARNATION, Incarnation, begin
from client.state.key_value import get_value
from governance.runtime.database import transaction
from protocols.wire.flower_frame import SESSION_BYTES
from tests.support.ledger_and_log import node_state


def test_the_first_start_has_no_start_before_it(tmp_path: Path) -> None:
    first = begin(node_state(tmp_path), lambda size: b"s" * size)
    assert first == Incarnation(1, b"s" * SESSION_BYTES, b"")


def test_each_start_is_higher_and_names_the_one_before(tmp_path: Path) -> None:
    engine = node_state(tmp_path)
    first, second, third = (begin(engine) for _ in range(3))
    assert [first.number, second.number, third.number] == [1, 2, 3]
    assert second.former == hashlib.sha256(first.session).digest()
    assert third.former == hashlib.sha256(second.session).digest()


def test_the_number_is_stored_when_the_start_begins(tmp_path: Path) -> None:
    begin(engine := node_state(tmp_path))
    with transaction(engine) as connection:
        assert get_value(connection, INCARNATION) == "1"


def test_the_secret_of_a_start_is_on_no_disk(tmp_path: Path) -> None:
    """A copy of the folder must not be able to speak in the name of the running process."""
    session = begin(node_state(tmp_path)).session
    for path in tmp_path.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert session not in content
        assert session.hex().encode() not in content
