"""A restart takes over at once; a copy ends nobody and is reported; the clock is a value."""

from dataclasses import dataclass, field

import pytest

from server.exchange.fencing import (
    KEPT_FREE_SECONDS,
    LIVE_SECONDS,
    MOST_COPIES,
    PROOF_SECONDS,
    Fence,
    SignIn,
    Standing,
    session_key,
)
from server.membership.acting_sessions import ActingSession

ADMITTED, WAITS, COPY = Standing.ADMITTED, Standing.WAITS, Standing.COPY


def start(number: int, name: str, former: SignIn | None = None) -> SignIn:
    """Return a start of a node; `former` is the start that its folder names as the one before."""
    return SignIn(name.encode(), number, session_key(former.session) if former else b"")


FIRST = start(1, "first")
NODE = start(2, "node", FIRST)
RESTART = start(3, "restart", NODE)
CLONE = start(3, "clone", NODE)
"""Started from a copy of the folder that was made while NODE ran."""
OLD_CLONE = start(2, "old clone", FIRST)
"""Started from a copy that was made before NODE started."""


@dataclass
class KeptSessions:
    """A store in memory."""

    kept: dict[str, ActingSession] = field(default_factory=dict)

    def load(self) -> list[ActingSession]:
        return list(self.kept.values())

    def save(self, session: ActingSession) -> None:
        self.kept[session.country] = session

    def forget(self, country: str) -> None:
        self.kept.pop(country, None)


class Watched:
    """A fence with a clock that the test moves, and the disputes that it reported."""

    def __init__(self) -> None:
        self.now, self.store = 1_000.0, KeptSessions()
        self.reported: list[str] = []
        self.open()

    def open(self) -> None:
        """Start the coordinator."""
        self.fence = Fence(self.store, on_dispute=self.reported.append, clock=lambda: self.now)

    def sign_in(self, start: SignIn, after: float = 0.0) -> Standing:
        self.now += after
        return self.fence.sign_in("AT", start)

    def calls(self, start: SignIn, after: float = 0.0) -> bool:
        self.now += after
        return self.fence.heard("AT", start.session)

    def live_beside(self, connected: SignIn, other: SignIn) -> Standing:
        """Have `other` try to sign in again and again while `connected` makes its heartbeats."""
        standing = WAITS
        for _ in range(4):
            standing = self.sign_in(other, 2.5)
            assert self.calls(connected, 2.5)
        return standing


@pytest.fixture
def watched() -> Watched:
    """A fence at which NODE is signed in."""
    made = Watched()
    assert made.sign_in(NODE) is ADMITTED
    return made


def test_the_first_session_of_a_node_is_admitted_and_its_calls_are_its_own(
    watched: Watched,
) -> None:
    assert watched.calls(NODE)
    assert not watched.calls(CLONE)
    assert not watched.fence.heard("BE", NODE.session)
    assert not watched.fence.disputed("AT")


def test_a_process_that_reconnects_is_admitted(watched: Watched) -> None:
    assert watched.sign_in(NODE, 600.0) is ADMITTED
    assert not watched.reported


def test_a_restart_takes_over_at_once_if_the_node_signed_off_or_its_connection_broke(
    watched: Watched,
) -> None:
    watched.fence.ended("AT", NODE.session)
    assert watched.sign_in(RESTART) is ADMITTED
    assert not watched.calls(NODE)
    assert watched.calls(RESTART)
    assert not watched.reported


def test_a_restart_waits_until_the_former_session_is_silent(watched: Watched) -> None:
    """The node's machine lost its power: nothing said that the connection is gone."""
    assert watched.sign_in(RESTART, LIVE_SECONDS - 0.1) is WAITS
    assert watched.sign_in(RESTART, 0.1) is ADMITTED
    assert not watched.reported


def test_a_late_call_of_a_process_that_ended_does_not_make_a_restart_a_copy(
    watched: Watched,
) -> None:
    assert watched.sign_in(RESTART) is WAITS
    assert watched.calls(NODE, PROOF_SECONDS - 0.1)
    assert watched.sign_in(RESTART, LIVE_SECONDS) is ADMITTED
    assert not watched.reported


@pytest.mark.parametrize("copy", [CLONE, OLD_CLONE, FIRST, start(99, "lies about its number")])
def test_a_copy_beside_a_connected_node_ends_nobody_and_is_reported_once(
    watched: Watched, copy: SignIn
) -> None:
    if copy is FIRST:  # a returning predecessor has a rule of its own
        copy = start(1, "first of a copy")
    assert watched.live_beside(NODE, copy) is COPY
    assert not watched.calls(copy)
    assert watched.fence.disputes() == ("AT",)
    assert watched.reported == ["AT"]


def test_a_copy_does_not_get_the_place_while_the_node_restarts(watched: Watched) -> None:
    watched.live_beside(NODE, CLONE)
    watched.fence.ended("AT", NODE.session)
    assert watched.sign_in(CLONE, 1.0) is COPY
    assert watched.sign_in(RESTART, 1.0) is ADMITTED
    assert watched.sign_in(CLONE, 1.0) is COPY


def test_a_session_that_was_refused_is_admitted_once_the_other_is_gone(watched: Watched) -> None:
    """It may be the original: nobody can know, and both are warned."""
    watched.live_beside(NODE, CLONE)
    watched.fence.ended("AT", NODE.session)
    assert watched.sign_in(CLONE, KEPT_FREE_SECONDS) is ADMITTED
    assert watched.fence.disputed("AT")
    assert watched.reported == ["AT"]


def test_an_original_whose_link_was_down_gets_its_place_back_from_the_copy(
    watched: Watched,
) -> None:
    assert watched.sign_in(CLONE, 60.0) is ADMITTED  # it looks like a restart
    assert watched.sign_in(NODE, 5.0) is WAITS
    assert watched.sign_in(NODE, 1.0) is ADMITTED  # it runs, so it was not restarted
    assert watched.calls(NODE)
    assert not watched.calls(CLONE)
    assert watched.sign_in(CLONE, 1.0) is COPY
    assert watched.reported == ["AT"]


def test_one_late_sign_in_of_a_process_that_ended_proves_nothing(watched: Watched) -> None:
    watched.fence.ended("AT", NODE.session)
    assert watched.sign_in(RESTART) is ADMITTED
    assert watched.sign_in(NODE) is WAITS
    assert watched.calls(RESTART)
    assert not watched.reported


@pytest.mark.parametrize("number", [1, 2])
def test_a_start_that_is_not_higher_and_finds_nobody_is_admitted_and_reported(
    watched: Watched, number: int
) -> None:
    """A restored backup looks like this, and so does a stolen folder."""
    assert watched.sign_in(start(number, "restored"), 3_600.0) is ADMITTED
    assert watched.reported == ["AT"]


def test_a_dispute_lasts_over_restarts_until_it_is_revoked(watched: Watched) -> None:
    watched.live_beside(NODE, CLONE)
    watched.open()
    assert watched.fence.disputed("AT")
    watched.fence.ended("AT", NODE.session)
    watched.sign_in(RESTART)
    assert watched.fence.disputed("AT")
    watched.fence.forget("AT")
    assert not watched.fence.disputed("AT")
    assert not watched.store.kept
    assert watched.sign_in(start(9, "enrolled again")) is ADMITTED
    assert watched.reported == ["AT"]


def test_a_restarted_coordinator_knows_whose_place_it_is(watched: Watched) -> None:
    watched.open()
    assert watched.calls(NODE)
    assert watched.sign_in(CLONE) is WAITS
    assert watched.live_beside(NODE, CLONE) is COPY


def test_a_call_of_another_session_does_not_end_the_acting_one(watched: Watched) -> None:
    watched.fence.ended("AT", CLONE.session)
    assert watched.sign_in(CLONE) is WAITS


def test_what_is_remembered_of_others_is_bounded(watched: Watched) -> None:
    for number in range(50):
        watched.sign_in(start(number, f"flood {number}"))
    place = watched.fence._places["AT"]
    assert len(place.waiting) == MOST_COPIES
    assert watched.calls(NODE, PROOF_SECONDS)
    assert len(place.copies) == MOST_COPIES
    assert watched.reported == ["AT"]


LIAR = SignIn(b"liar", 9, session_key(b"anything"))
"""A copy that states a high number, and another predecessor than the one whose place it takes."""


def test_a_copy_that_lies_about_its_predecessor_gives_its_place_back(watched: Watched) -> None:
    watched.sign_in(NODE)
    assert watched.sign_in(LIAR, LIVE_SECONDS) is ADMITTED
    assert watched.sign_in(NODE, 1.0) is WAITS
    assert watched.calls(LIAR, PROOF_SECONDS)
    assert watched.sign_in(NODE, 1.0) is ADMITTED
    assert watched.reported == ["AT"]
    assert watched.sign_in(LIAR, LIVE_SECONDS) is COPY


def test_a_session_that_was_found_to_be_a_copy_is_nobody_s_predecessor(watched: Watched) -> None:
    watched.sign_in(NODE)
    watched.sign_in(LIAR, LIVE_SECONDS)
    watched.sign_in(NODE, 1.0)
    watched.sign_in(NODE, 1.0)
    assert watched.sign_in(LIAR, 1.0) is COPY
    assert watched.sign_in(LIAR, 1.0) is COPY
    assert watched.calls(NODE, 1.0)
