"""The machine's checks: clock and exchange, disk, socket, policy engine."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client.commands import doctor_machine
from client.commands.check_result import NeedsAttention, SkipCheck
from client.commands.doctor_machine import check_clock, check_machine, time_in
from client.home import NodeHome
from governance.errors import DocumentFault
from governance.runtime.homes import HomeFault
from keys.errors import PratiqueError
from protocols.wire.exchange_clock import TIME_KEY, ExchangeClock

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def exchange(seconds: float) -> ExchangeClock:
    clock = ExchangeClock(lambda: NOW)
    stated = NOW + timedelta(seconds=seconds)
    clock.note([(TIME_KEY, stated.isoformat())], timedelta())
    return clock


def test_clocks_in_step_are_said_to_be_measured() -> None:
    assert "in step with the exchange's clock" in check_clock(NOW, NOW, None, exchange(1))
    assert "as far as is known" in check_clock(NOW, NOW, None, None)


@pytest.mark.parametrize(
    ("seconds", "words"), [(-10, "10 seconds ahead"), (240, "4 minutes behind")]
)
def test_a_difference_needs_attention_although_signed_times_agree(
    seconds: float, words: str
) -> None:
    with pytest.raises(NeedsAttention, match=words) as caught:
        check_clock(NOW, NOW, None, exchange(seconds))
    assert "NTP" in caught.value.args[1]


@pytest.mark.parametrize("seconds", [-400, 400])
def test_a_difference_that_stops_the_node_is_a_fault(seconds: float) -> None:
    with pytest.raises(PratiqueError, match="about 7 minutes") as caught:
        check_clock(NOW, NOW, None, exchange(seconds))
    assert "about 5 minutes" in caught.value.why
    assert "NTP" in caught.value.fix


def test_nothing_known_is_no_result() -> None:
    with pytest.raises(SkipCheck):
        check_clock(NOW, None, None, None)


def test_a_machine_without_room_for_the_socket_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(HomeFault, match="too long"):
        check_machine(NodeHome(tmp_path / ("n" * 120)))


def test_a_machine_whose_policy_engine_does_not_run_is_a_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "process runs" in check_machine(NodeHome(Path("/n")))

    def fail(_: str) -> None:
        raise DocumentFault("The policy cannot be used", why="Cedar's process ended")

    monkeypatch.setattr(doctor_machine, "check_base", fail)
    with pytest.raises(DocumentFault):
        check_machine(NodeHome(Path("/n")))


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        b"",
        b"[]",
        b"{}",
        b'{"signed": {"expires": 3}}',
        b'{"signed": {"expires": "2026-11-30T12:00:00"}}',
        b'{"signed": ' + b"[" * 100_000,
    ],
)
def test_unreadable_metadata_state_no_time(metadata: bytes | None) -> None:
    assert time_in(metadata, "expires") is None
    assert check_clock(NOW, NOW, metadata, None)
