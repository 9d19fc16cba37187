"""A pause is durable, has a reason, and makes the node refuse."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from client.state.key_value import get_value, set_value
from client.state.pause import LONGEST_REASON, Pause, PauseSwitch
from governance.runtime.database import transaction
from protocols.errors import ReasonCode, Refusal
from tests.support.ledger_and_log import node_state

NOW = datetime(2026, 9, 1, tzinfo=UTC)


@pytest.fixture
def switch(tmp_path: Path) -> PauseSwitch:
    return PauseSwitch(node_state(tmp_path))


def test_a_new_node_is_not_paused(switch: PauseSwitch) -> None:
    assert switch.state() is None
    switch.require_running()


@pytest.mark.parametrize("reason", ["audit week", ""])
def test_a_paused_node_refuses_with_its_reason(switch: PauseSwitch, reason: str) -> None:
    switch.set(reason, NOW)
    with pytest.raises(Refusal) as refusal:
        switch.require_running()
    assert refusal.value.code is ReasonCode.PAUSED
    assert (reason or "2026-09-01") in refusal.value.why


def test_a_pause_is_cleared(switch: PauseSwitch) -> None:
    switch.set("x", NOW)
    switch.clear()
    switch.clear()
    switch.require_running()


def test_the_last_reason_counts(switch: PauseSwitch) -> None:
    switch.set("first", NOW)
    switch.set("second", NOW)
    assert switch.state() == Pause("second", NOW.isoformat())


def test_a_pause_outlives_the_process(tmp_path: Path) -> None:
    PauseSwitch(node_state(tmp_path)).set("kept", NOW)
    pause = PauseSwitch(node_state(tmp_path)).state()
    assert pause is not None
    assert pause.reason == "kept"


def test_a_long_reason_is_cut(switch: PauseSwitch) -> None:
    switch.set("x" * 10_000, NOW)
    pause = switch.state()
    assert pause is not None
    assert len(pause.reason) == LONGEST_REASON


def test_stored_values_are_set_replaced_and_deleted(tmp_path: Path) -> None:
    engine = node_state(tmp_path)
    for value in ("one", "two", None, None):
        with transaction(engine) as connection:
            set_value(connection, "name", value)
            assert get_value(connection, "name") == value
            assert get_value(connection, "other") is None
