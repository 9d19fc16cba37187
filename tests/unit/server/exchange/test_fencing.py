"""A restart takes over at once; a copy ends nobody and is reported; the clock is a value."""

from dataclasses import dataclass, field

import pytest

from server.exchange.fencing import (
    KEPT_FREE_SECONDS,
    LIVE_SECONDS,
    MOST_COPIES,
    MOST_EARLIER,
    PROOF_SECONDS,
    Fence,
    Rank,
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


@pytest.mark.parametrize(
    "again",
    [
        start(4, "clone, started again", CLONE),
        start(9, "clone of an old folder", FIRST),
        start(2, "clone without a higher number", NODE),
    ],
)
def test_a_copy_that_starts_again_waits_for_the_place_as_well(
    watched: Watched, again: SignIn
) -> None:
    watched.live_beside(NODE, CLONE)
    watched.open()  # a restarted coordinator has forgotten which sessions were copies
    watched.fence.ended("AT", NODE.session)
    assert watched.sign_in(again, 1.0) is WAITS
    assert watched.sign_in(again, KEPT_FREE_SECONDS - 1.1) is WAITS
    assert watched.sign_in(RESTART) is ADMITTED


def test_in_a_dispute_a_start_that_names_another_predecessor_waits_no_longer(
    watched: Watched,
) -> None:
    """It may be the node: its folder was started once more before it could sign in."""
    watched.live_beside(NODE, CLONE)
    watched.fence.ended("AT", NODE.session)
    node = start(4, "node, started twice", RESTART)
    assert watched.sign_in(node, KEPT_FREE_SECONDS - 0.1) is WAITS
    assert watched.sign_in(node, 0.1) is ADMITTED


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


def test_a_copy_that_starts_again_and_again_gives_the_place_back(watched: Watched) -> None:
    starts = [start(number, f"copy {number}") for number in range(3, MOST_EARLIER)]
    for copy in starts:
        watched.fence.ended("AT", NODE.session)
        assert watched.sign_in(copy, LIVE_SECONDS) is ADMITTED
    watched.open()
    assert watched.sign_in(NODE) is WAITS
    assert watched.sign_in(NODE, 1.0) is ADMITTED
    assert watched.reported == ["AT"]
    assert watched.sign_in(starts[-1], 1.0) is COPY
    assert not watched.fence.acted("AT", starts[0].session)
    assert watched.store.kept["AT"].earlier == (session_key(FIRST.session),)


def test_few_predecessors_are_remembered(watched: Watched) -> None:
    for number in range(3, MOST_EARLIER + 10):
        assert watched.sign_in(start(number, f"start {number}"), LIVE_SECONDS) is ADMITTED
    assert len(watched.store.kept["AT"].earlier) == MOST_EARLIER
    assert not watched.fence.acted("AT", NODE.session)


HERE, ELSEWHERE = "10.0.0.1", "10.9.9.9"


def test_a_session_counts_as_a_likely_restart_at_the_address_of_the_acting_one(
    watched: Watched,
) -> None:
    def rank(country: str, session: bytes, address: str) -> Rank:
        return watched.fence.claim(country, session, address).rank

    assert rank("AT", CLONE.session, "") is Rank.OTHER
    assert rank("AT", NODE.session, HERE) is Rank.ACTS
    assert rank("AT", NODE.session, "") is Rank.ACTS  # its connection has ended
    assert rank("AT", RESTART.session, HERE) is Rank.LIKELY
    assert rank("AT", CLONE.session, ELSEWHERE) is Rank.OTHER
    assert rank("BE", NODE.session, HERE) is Rank.OTHER
    watched.sign_in(CLONE, LIVE_SECONDS)
    assert rank("AT", NODE.session, HERE) is Rank.FORMER  # it acted before
    assert rank("AT", RESTART.session, HERE) is Rank.LIKELY


def test_a_node_that_reconnects_while_a_copy_waits_still_proves_that_it_lives(
    watched: Watched,
) -> None:
    assert watched.sign_in(CLONE) is WAITS
    assert watched.sign_in(NODE, PROOF_SECONDS) is ADMITTED
    assert watched.calls(NODE)
    assert watched.sign_in(CLONE) is COPY
    assert watched.reported == ["AT"]


def test_a_copy_that_signs_in_again_and_again_gives_the_place_back(watched: Watched) -> None:
    """What the node's first call proves is not forgotten at the copy's next sign-in."""
    assert watched.sign_in(CLONE, LIVE_SECONDS) is ADMITTED
    assert watched.sign_in(NODE, 1.0) is WAITS
    assert watched.sign_in(CLONE, 1.0) is ADMITTED
    assert watched.calls(CLONE, 1.0)
    assert watched.sign_in(NODE) is ADMITTED
    assert watched.sign_in(CLONE, 1.0) is COPY
    assert watched.reported == ["AT"]


def test_copies_that_take_turns_give_the_place_back(watched: Watched) -> None:
    """Those that acted before call between the node's calls, and another one acts each time."""
    copies = [start(number, f"copy {number}") for number in range(3, 3 + 2 * MOST_COPIES)]
    for copy in copies:
        watched.fence.ended("AT", NODE.session)
        assert watched.sign_in(copy, LIVE_SECONDS) is ADMITTED
    assert watched.sign_in(NODE) is WAITS
    *former, acting = copies
    for copy in former:
        assert watched.sign_in(copy) is WAITS
    watched.fence.ended("AT", acting.session)
    assert watched.sign_in(start(99, "one more")) is ADMITTED
    assert watched.sign_in(NODE) is ADMITTED
    assert watched.reported == ["AT"]


def test_a_first_call_from_before_a_process_acted_again_proves_nothing_later(
    watched: Watched,
) -> None:
    watched.sign_in(CLONE, LIVE_SECONDS)
    watched.sign_in(NODE, 1.0)
    watched.sign_in(NODE, 1.0)
    watched.fence.ended("AT", NODE.session)
    assert watched.sign_in(RESTART) is ADMITTED
    assert watched.sign_in(NODE) is WAITS


def test_of_those_that_acted_before_the_earlier_one_has_the_better_claim(
    watched: Watched,
) -> None:
    watched.sign_in(CLONE, LIVE_SECONDS)
    watched.sign_in(start(9, "next"), LIVE_SECONDS)
    node, clone = (watched.fence.claim("AT", each.session, "") for each in (NODE, CLONE))
    assert node.rank is clone.rank is Rank.FORMER
    assert node.before < clone.before


class FullDisk(KeptSessions):
    """A store whose disk is full at times."""

    full = False

    def save(self, session: ActingSession) -> None:
        if self.full:
            raise OSError("no space left on device")
        super().save(session)


@pytest.mark.parametrize("place", ["store", "log"])
def test_a_dispute_that_could_not_be_stored_or_reported_is_repeated(place: str) -> None:
    watched = Watched()
    watched.store = store = FullDisk()
    log = FullDisk()

    def report(country: str) -> None:
        log.save(ActingSession(country, 1, b"", ()))
        watched.reported.append(country)

    watched.fence = Fence(store, on_dispute=report, clock=lambda: watched.now)
    watched.sign_in(NODE)
    watched.sign_in(CLONE)
    full = store if place == "store" else log
    full.full = True
    with pytest.raises(OSError, match="no space"):
        watched.calls(NODE, PROOF_SECONDS)
    full.full = False
    assert watched.calls(NODE, 1.0)
    assert watched.calls(NODE, 1.0)
    assert watched.fence.disputed("AT")
    assert watched.reported == ["AT"]
    assert store.kept["AT"].disputed
    assert watched.sign_in(CLONE) is COPY
