"""A hostile party with a valid certificate cannot fill the coordinator's log."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from governance.audit.events import EventKind
from keys.certificates import Peer, Role
from server.exchange.call_refusals import PAUSE, CallRefusals

START = datetime(2026, 11, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def noted(clock: Clock) -> tuple[CallRefusals, list[dict[str, Any]]]:
    entries: list[dict[str, Any]] = []

    def note(kind: EventKind, **details: Any) -> None:
        entries.append({"kind": kind, **details})

    return CallRefusals(note, clock), entries


def peer(country: str = "PL", role: Role = Role.NODE) -> Peer:
    return Peer("north-sea", country, role, 1, START + timedelta(days=1))


def test_the_first_refusal_is_logged_at_once(
    noted: tuple[CallRefusals, list[dict[str, Any]]],
) -> None:
    refusals, entries = noted
    refusals(peer(), "PullObject", "PL asked with an object not addressed to it")
    assert [e["subject"] for e in entries] == ["PL node PullObject"]
    assert entries[0]["kind"] is EventKind.CALL_REFUSED


def test_a_thousand_more_refusals_are_one_entry_with_their_number(
    noted: tuple[CallRefusals, list[dict[str, Any]]], clock: Clock
) -> None:
    refusals, entries = noted
    for _ in range(1001):
        refusals(peer(), "PullObject", "not its own")
    assert len(entries) == 1
    clock.now += PAUSE
    refusals(peer(), "PullObject", "not its own")
    counted, last = entries[1:]
    assert counted["reason"] == "1000 more calls of this kind were refused"
    assert (counted["subject"], last["reason"]) == ("PL node PullObject", "not its own")


def test_refusals_of_other_parties_roles_and_calls_are_still_logged(
    noted: tuple[CallRefusals, list[dict[str, Any]]],
) -> None:
    refusals, entries = noted
    for country, number in zip(("PL", "DE", "FR"), count(), strict=False):
        refusals(peer(country), "PullObject", str(number))
    refusals(peer(role=Role.OFFICER), "PullObject", "another role")
    refusals(peer(), "PushObject", "another call")
    assert len(entries) == 5
