"""The round driver, with countries that are silent, refuse, send nonsense, repeat, or are late.

Of four countries, three must remain, so one may be missing; of three countries, none may be.
"""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.errors import ProtocolFault, ReasonCode
from protocols.private_sum.coordinator_round import OpenedSum, VoidRound
from protocols.private_sum.coordinator_run import CoordinatorRun
from protocols.private_sum.messages import refusal_reply
from server.errors import GONE
from server.runs.rounds import (
    ANSWERED,
    ATTEMPTS,
    CATCHING_UP,
    NOT_AGREED,
    SPARED_SECONDS,
    RoundDriver,
    RoundReport,
    SetUpFailed,
    recorded,
)
from tests.support.direct_carrier import Answer, DirectCarrier
from tests.support.examples import examples
from tests.support.protocol_world import (
    MODEL,
    NAMES,
    ProtocolWorld,
    coordinator_of,
)

SIZE = 3
SETTING_UP = ("bundle", "encapsulate", "confirm")
IN_ROUND = ("contribute", "answer")
VALUES = {name: np.array([n, 2, 3, -4, 5 * n]) for n, name in enumerate(NAMES)}


class ScriptedRun:
    def __init__(self, size: int = SIZE, **changes: object) -> None:
        self.world = ProtocolWorld.of(size, **changes)
        self.carrier = DirectCarrier(self.world, VALUES)
        self.roster = self.world.terms.roster
        self.pauses: list[float] = []
        self.closed: dict[int, tuple[str, ...]] = {}
        self.driver = self.driver_of(self.world.coordinator)

    def driver_of(self, coordinator_run: CoordinatorRun) -> RoundDriver:
        return RoundDriver(
            coordinator_run,
            self.roster,
            self.carrier,
            seconds=3.5,
            sleep=self.pauses.append,
            keep_closed=self.store_closed,
            closed=dict(self.closed),
        )

    def store_closed(self, number: int, countries: tuple[str, ...]) -> None:
        asked_to_agree = [country for country, phase in self.carrier.asked if phase == "agree"]
        assert len(asked_to_agree) == sum(map(len, self.closed.values())), (
            "asked before it is stored"
        )
        assert number not in self.closed
        self.closed[number] = countries

    def set_up(self) -> "ScriptedRun":
        self.driver.set_up()
        return self

    def round(self, number: int = 1) -> RoundReport:
        return self.driver.sum(number, "train", MODEL)


def silent(_: bytes) -> None:
    return None


def nonsense(_: bytes) -> bytes:
    return b"\xff\x00 nonsense"


def empty(_: bytes) -> bytes:
    return b""


def refusal(_: bytes) -> bytes:
    return refusal_reply(ReasonCode.DECLINED)


def behind(_: bytes) -> bytes:
    return refusal_reply(ReasonCode.DOCUMENTS_BEHIND)


def expired(_: bytes) -> bytes:
    return refusal_reply(ReasonCode.DOCUMENTS_EXPIRED)


def opened(report: RoundReport, size: int = SIZE, without: str = "") -> OpenedSum:
    assert isinstance(report.outcome, OpenedSum), report
    countries = tuple(name for name in NAMES[:size] if name != without)
    assert np.array_equal(report.outcome.values, sum(VALUES[name] for name in countries))
    assert report.outcome.countries == countries
    return report.outcome


def test_honest_countries_open_their_sum() -> None:
    run = ScriptedRun().set_up()
    report = run.round()
    opened(report)
    assert (report.number, report.phase, report.causes) == (1, "train", {})
    assert report.seconds > 0
    assert set(run.carrier.seconds) == {3.5}
    assert len(run.carrier.asked) == SIZE * 5


def test_rounds_follow_each_other() -> None:
    run = ScriptedRun().set_up()
    for number in (1, 2, 3):
        opened(run.round(number))


@pytest.mark.parametrize("phase", SETTING_UP)
@pytest.mark.parametrize("country", ["AT", "BE", "CZ"])
def test_a_country_that_is_silent_once_is_asked_again_with_the_same_bytes(
    phase: str, country: str
) -> None:
    run = ScriptedRun()
    frames: list[bytes] = []

    def ignore(frame: bytes) -> None:
        frames.append(frame)

    def awake(frame: bytes) -> bytes:
        frames.append(frame)
        return run.carrier.honest(country, frame)

    run.carrier.misbehave(country, phase, ignore, awake)
    opened(run.set_up().round())
    assert len(frames) == 2
    assert frames[0] == frames[1]
    others = {"AT", "BE", "CZ"} - {country}
    assert all(run.carrier.asked.count((other, phase)) == 1 for other in others)


@pytest.mark.parametrize("phase", IN_ROUND)
def test_a_country_whose_reply_was_lost_repeats_it(phase: str) -> None:
    run = ScriptedRun().set_up()

    def lost(frame: bytes) -> None:
        run.carrier.honest("BE", frame)

    run.carrier.misbehave("BE", phase, lost)
    opened(run.round())


@pytest.mark.parametrize("phase", SETTING_UP)
@pytest.mark.parametrize(
    ("answer", "cause"),
    [(silent, "no reply in time"), (refusal, "refused (declined)"), (nonsense, ""), (empty, "")],
)
def test_a_set_up_fails_and_names_the_country_and_its_cause(
    phase: str, answer: Answer, cause: str
) -> None:
    run = ScriptedRun()
    run.carrier.misbehave("BE", phase, *[answer] * ATTEMPTS)
    with pytest.raises(SetUpFailed) as caught:
        run.driver.set_up()
    fault = caught.value
    assert set(fault.causes) == {"BE"}
    assert cause in fault.causes["BE"]
    assert fault.causes["BE"] in fault.why
    assert "BE: " in fault.why
    assert fault.fix


def test_every_country_at_fault_is_named() -> None:
    run = ScriptedRun()
    run.carrier.misbehave("AT", "bundle", silent, silent)
    run.carrier.misbehave("CZ", "bundle", refusal)
    with pytest.raises(SetUpFailed) as caught:
        run.driver.set_up()
    assert caught.value.causes == {"AT": "no reply in time", "CZ": "refused (declined)"}


def test_no_request_follows_a_failed_step() -> None:
    run = ScriptedRun()
    run.carrier.misbehave("AT", "bundle", refusal)
    with pytest.raises(SetUpFailed):
        run.driver.set_up()
    assert {phase for _, phase in run.carrier.asked} == {"bundle"}


@pytest.mark.parametrize("answer", [refusal, nonsense])
def test_a_country_that_refused_is_not_asked_again(answer: Answer) -> None:
    run = ScriptedRun()
    run.carrier.misbehave("AT", "bundle", answer)
    with pytest.raises(SetUpFailed):
        run.driver.set_up()
    assert run.carrier.asked.count(("AT", "bundle")) == 1


@pytest.mark.parametrize("answer", [silent, refusal, nonsense, empty])
def test_a_round_without_a_contribution_is_void_and_asks_for_no_shares(answer: Answer) -> None:
    run = ScriptedRun().set_up()
    run.carrier.misbehave("CZ", "contribute", *[answer] * ATTEMPTS)
    report = run.round()
    assert isinstance(report.outcome, VoidRound)
    assert set(report.causes) == {"CZ"}
    assert not any(phase == "answer" for _, phase in run.carrier.asked)


def test_a_round_after_a_void_one_opens() -> None:
    run = ScriptedRun().set_up()
    run.carrier.misbehave("CZ", "contribute", silent, silent)
    assert isinstance(run.round(1).outcome, VoidRound)
    opened(run.round(2))


@pytest.mark.parametrize("answer", [silent, refusal, nonsense])
def test_a_missing_answer_changes_nothing_if_enough_are_left(answer: Answer) -> None:
    run = ScriptedRun(5).set_up()
    run.carrier.misbehave("AT", "answer", *[answer] * ATTEMPTS)
    report = run.round()
    opened(report, 5)
    assert set(report.causes) == {"AT"}


def test_too_few_answers_are_a_void_round() -> None:
    run = ScriptedRun().set_up()
    for country in ("AT", "BE"):
        run.carrier.misbehave(country, "answer", silent, silent)
    assert isinstance(run.round().outcome, VoidRound)


@pytest.mark.parametrize("phase", [*SETTING_UP, *IN_ROUND])
@pytest.mark.parametrize("answer", [behind, expired])
def test_a_country_whose_documents_catch_up_is_asked_again_with_the_same_bytes(
    phase: str, answer: Answer
) -> None:
    run = ScriptedRun()
    frames: list[bytes] = []

    def late(frame: bytes) -> bytes | None:
        frames.append(frame)
        return answer(frame)

    run.carrier.misbehave("BE", phase, late, late, late)
    opened(run.set_up().round())
    assert run.pauses == list(CATCHING_UP[:3])
    assert len(set(frames)) == 1
    assert run.carrier.asked.count(("AT", phase)) == 1, "nobody else is asked again"


def test_a_country_whose_documents_stay_behind_is_named_in_the_end() -> None:
    run = ScriptedRun()
    run.carrier.misbehave("BE", "bundle", *[behind] * (len(CATCHING_UP) + 1))
    with pytest.raises(SetUpFailed) as caught:
        run.driver.set_up()
    assert caught.value.causes == {"BE": "refused (documents-behind)"}
    assert run.pauses == list(CATCHING_UP)
    assert sum(CATCHING_UP) > 30, "a node fetches documents by itself every 30 s"


def test_a_country_may_be_silent_and_behind_in_turn() -> None:
    run = ScriptedRun().set_up()
    run.carrier.misbehave("BE", "contribute", silent, behind)
    opened(run.round())


def test_another_driver_continues_after_a_finished_set_up() -> None:
    run = ScriptedRun()
    replies = run.driver.set_up()
    assert {step: set(said) for step, said in replies.items()} == {
        step: set(run.roster) for step in SETTING_UP
    }
    again = coordinator_of(run.carrier._world.terms)
    driver = run.driver_of(again)
    driver.resume(replies)
    count = len(run.carrier.asked)
    opened(driver.sum(1, "train", MODEL))
    assert {phase for _, phase in run.carrier.asked[count:]} == set(IN_ROUND)


def test_a_set_up_of_another_run_is_refused() -> None:
    run = ScriptedRun()
    replies = run.driver.set_up()
    other = ProtocolWorld.of(SIZE, run_id=bytes(16))
    driver = run.driver_of(other.coordinator)
    with pytest.raises(ProtocolFault):
        driver.resume(replies)


FOUR = 4
REMAINING = ("AT", "BE", "DK")
"""The countries that remain of four without CZ."""


def four() -> ScriptedRun:
    """Return a run of four countries, set up, of which one may drop out (n=4, c=1: t=3)."""
    return ScriptedRun(FOUR, honest=2).set_up()


def asked_in(run: ScriptedRun, phase: str) -> list[str]:
    return [country for country, asked_phase in run.carrier.asked if asked_phase == phase]


@pytest.mark.parametrize(
    ("answer", "cause"),
    [(silent, "no reply in time"), (refusal, "refused (declined)"), (nonsense, ""), (empty, "")],
)
def test_a_country_that_does_not_contribute_is_left_out(answer: Answer, cause: str) -> None:
    run = four()
    run.carrier.misbehave("CZ", "contribute", *[answer] * ATTEMPTS)
    report = run.round()
    opened(report, FOUR, without="CZ")
    assert set(report.causes) == {"CZ"}
    assert cause in report.causes["CZ"]
    assert run.closed == {1: REMAINING}
    assert asked_in(run, "agree") == asked_in(run, "answer") == list(REMAINING)
    assert recorded(report).countries == REMAINING


def test_in_a_complete_round_nobody_is_asked_to_agree_and_no_set_is_stored() -> None:
    run = four()
    opened(run.round(), FOUR)
    assert not asked_in(run, "agree")
    assert not run.closed


def test_a_country_left_out_is_back_in_the_next_round_that_it_answers() -> None:
    run = four()
    run.carrier.misbehave("CZ", "contribute", silent, silent, silent)
    opened(run.round(1), FOUR, without="CZ")
    opened(run.round(2), FOUR, without="CZ")
    opened(run.round(3), FOUR)
    assert not run.round(4).causes
    assert run.closed == {1: REMAINING, 2: REMAINING}


def test_a_country_that_was_left_out_is_asked_last_and_once_and_for_a_short_time() -> None:
    run = four()
    run.carrier.misbehave("CZ", "contribute", *[silent] * 3)
    run.round(1)
    before, waits = len(run.carrier.asked), len(run.carrier.seconds)
    run.driver._seconds = 90.0
    run.round(2)
    contributing = [c for c, phase in run.carrier.asked[before:] if phase == "contribute"]
    assert contributing == [*REMAINING, "CZ"]
    assert run.carrier.seconds[waits:] == [90.0, SPARED_SECONDS, 90.0, 90.0]


def test_a_country_that_was_left_out_is_not_waited_for_while_its_documents_catch_up() -> None:
    run = four()
    run.carrier.misbehave("CZ", "contribute", *[behind] * (len(CATCHING_UP) + 2))
    opened(run.round(1), FOUR, without="CZ")
    assert run.pauses == list(CATCHING_UP)
    opened(run.round(2), FOUR, without="CZ")
    assert run.pauses == list(CATCHING_UP)
    opened(run.round(3), FOUR)


def test_a_country_that_was_left_out_is_waited_for_again_if_another_one_is_gone() -> None:
    """Three of four are needed: with a second one gone, the first is asked as often as any."""
    run = four()
    run.carrier.misbehave("CZ", "contribute", silent, silent, silent)
    opened(run.round(1), FOUR, without="CZ")
    run.carrier.misbehave("AT", "contribute", refusal)
    opened(run.round(2), FOUR, without="AT")


@pytest.mark.parametrize("answer", [silent, refusal, nonsense, empty])
def test_a_country_that_does_not_agree_makes_the_round_void_and_nobody_answers(
    answer: Answer,
) -> None:
    run = four()
    run.carrier.misbehave("CZ", "contribute", *[silent] * ATTEMPTS)
    run.carrier.misbehave("BE", "agree", *[answer] * ATTEMPTS)
    report = run.round()
    assert report.outcome == VoidRound(NOT_AGREED, ("BE",))
    assert set(report.causes) == {"BE", "CZ"}
    assert not asked_in(run, "answer")
    opened(run.round(2), FOUR)


@pytest.mark.parametrize("answer", [silent, refusal, nonsense, empty])
def test_a_missing_answer_for_the_smaller_set_makes_the_round_void(answer: Answer) -> None:
    run = four()
    run.carrier.misbehave("CZ", "contribute", *[silent] * ATTEMPTS)
    run.carrier.misbehave("BE", "answer", *[answer] * ATTEMPTS)
    report = run.round()
    assert report.outcome == VoidRound("too few countries answered", ("BE",))
    assert set(report.causes) == {"BE", "CZ"}
    opened(run.round(2), FOUR)


@pytest.mark.parametrize("phase", ["agree", "answer"])
def test_a_country_silent_once_in_the_smaller_set_is_asked_again(phase: str) -> None:
    run = four()
    run.carrier.misbehave("CZ", "contribute", *[silent] * ATTEMPTS)
    run.carrier.misbehave("DK", phase, silent)
    opened(run.round(), FOUR, without="CZ")


def test_too_few_remaining_countries_make_the_round_void_and_nobody_agrees() -> None:
    run = four()
    for country in ("AT", "CZ"):
        run.carrier.misbehave(country, "contribute", *[silent] * ATTEMPTS)
    report = run.round()
    assert report.outcome == VoidRound(
        "too few countries contributed: 2 of the 3 needed", ("AT", "CZ")
    )
    assert {phase for _, phase in run.carrier.asked} == {*SETTING_UP, "contribute"}
    assert not run.closed
    opened(run.round(2), FOUR)


def resumed_driver(run: ScriptedRun) -> RoundDriver:
    """Return the round driver of another attempt, which has only what was stored."""
    again = coordinator_of(run.world.terms)
    for name in ("_bundles", "_encapsulations", "_ciphertexts", "_macs"):
        setattr(again, name, getattr(run.world.coordinator, name))
    return run.driver_of(again)


class Dead(BaseException):
    """The coordinator's process has ended."""


def dying(_: bytes) -> None:
    raise Dead


@pytest.mark.parametrize(("phase", "country"), [("agree", "AT"), ("agree", "DK"), ("answer", "DK")])
def test_a_round_resumed_after_it_was_closed_opens_over_the_same_countries(
    phase: str, country: str
) -> None:
    """The country that dropped out is back, and is not asked."""
    run = four()
    run.carrier.misbehave("CZ", "contribute", *[silent] * ATTEMPTS)
    run.carrier.misbehave(country, phase, dying)
    with pytest.raises(Dead):
        run.round()
    again, frames = resumed_driver(run), dict(run.carrier.frames)
    before = len(run.carrier.asked)
    opened(again.sum(1, "train", MODEL), FOUR, without="CZ")
    requests = run.carrier.asked[before:]
    assert requests == [(c, p) for p in ("contribute", "agree", "answer") for c in REMAINING]
    assert all(run.carrier.frames[key] == frame for key, frame in frames.items())
    opened(again.sum(2, "train", MODEL), FOUR)


def test_a_round_resumed_before_it_was_closed_begins_again_with_all_countries() -> None:
    run = four()
    run.carrier.misbehave("CZ", "contribute", silent, dying)
    with pytest.raises(Dead):
        run.round()
    assert not run.closed
    opened(resumed_driver(run).sum(1, "train", MODEL), FOUR)


def test_a_round_resumed_after_it_was_closed_is_void_if_a_remaining_country_is_gone() -> None:
    run = four()
    run.carrier.misbehave("CZ", "contribute", *[silent] * ATTEMPTS)
    run.carrier.misbehave("AT", "agree", dying)
    with pytest.raises(Dead):
        run.round()
    run.carrier.misbehave("BE", "contribute", *[silent] * ATTEMPTS)
    report = resumed_driver(run).sum(1, "train", MODEL)
    assert isinstance(report.outcome, VoidRound)
    assert report.outcome.missing == tuple(report.causes) == ("BE",)
    assert "agreed on did not contribute" in report.outcome.reason


def test_a_round_resumed_amid_the_answers_is_void_with_a_reason_if_a_country_is_gone() -> None:
    """A country that has answered for all countries signs no other set."""
    run = four()
    run.carrier.misbehave("DK", "answer", dying)
    with pytest.raises(Dead):
        run.round()
    run.carrier.misbehave("DK", "contribute", *[silent] * ATTEMPTS)
    report = resumed_driver(run).sum(1, "train", MODEL)
    assert report.outcome == VoidRound(NOT_AGREED, ("AT", "BE", "CZ"))
    assert report.causes == {"DK": "no reply in time", **dict.fromkeys(NAMES[:3], ANSWERED)}


def stale(_: bytes) -> bytes:
    return refusal_reply(ReasonCode.STALE)


def test_a_country_that_leaves_before_it_agrees_is_reported_as_gone() -> None:
    run = four()
    run.carrier.misbehave("CZ", "contribute", *[silent] * ATTEMPTS)
    run.carrier.misbehave("BE", "agree", stale)
    report = run.round()
    assert report.outcome == VoidRound(NOT_AGREED, ("BE",))
    assert report.causes == {"BE": GONE, "CZ": "no reply in time"}


def test_a_country_that_leaves_after_the_resumed_round_is_reported_as_gone() -> None:
    run = four()
    again = resumed_driver(run)
    opened(again.sum(1, "train", MODEL), FOUR)
    run.carrier.misbehave("CZ", "contribute", *[silent] * ATTEMPTS)
    run.carrier.misbehave("BE", "agree", stale)
    assert again.sum(2, "train", MODEL).causes == {"BE": GONE, "CZ": "no reply in time"}


def test_a_country_that_leaves_a_resumed_closed_round_is_reported_as_gone() -> None:
    run = four()
    run.carrier.misbehave("CZ", "contribute", *[silent] * ATTEMPTS)
    run.carrier.misbehave("DK", "agree", dying)
    with pytest.raises(Dead):
        run.round()
    run.carrier.misbehave("BE", "agree", stale)
    assert resumed_driver(run).sum(1, "train", MODEL).causes == {"BE": GONE}


def test_a_round_resumed_amid_the_answers_opens_over_all_countries() -> None:
    run = four()
    run.carrier.misbehave("DK", "answer", dying)
    with pytest.raises(Dead):
        run.round()
    opened(resumed_driver(run).sum(1, "train", MODEL), FOUR)


def replies_of_another_country(run: ScriptedRun, country: str) -> Callable[[bytes], bytes]:
    def answer(frame: bytes) -> bytes:
        other_country = next(other for other in run.roster if other != country)
        (theirs,) = [
            reply
            for (who, asked), reply in run.carrier._journal.items()
            if who == other_country and asked != frame
        ][-1:]
        return theirs

    return answer


def test_a_country_cannot_send_the_reply_of_another_country() -> None:
    run = ScriptedRun().set_up()
    run.carrier.misbehave("BE", "contribute", replies_of_another_country(run, "BE"))
    report = run.round()
    assert isinstance(report.outcome, VoidRound)
    assert set(report.causes) == {"BE"}


def test_a_reply_of_an_earlier_round_is_refused() -> None:
    run = ScriptedRun().set_up()
    replies: list[bytes] = []

    def keep(frame: bytes) -> bytes:
        replies.append(run.carrier.honest("BE", frame))
        return replies[0]

    run.carrier.misbehave("BE", "contribute", keep)
    opened(run.round(1))
    run.carrier.misbehave("BE", "contribute", lambda _: replies[0])
    report = run.round(2)
    assert isinstance(report.outcome, VoidRound)
    assert set(report.causes) == {"BE"}


def outcome_of(run: ScriptedRun) -> RoundReport | SetUpFailed:
    """Drive one round; only a failed set-up may be raised."""
    try:
        return run.set_up().round()
    except SetUpFailed as failed:
        return failed


@settings(max_examples=examples(60), deadline=None)
@given(data=st.data())
def test_damaged_replies_never_break_the_driver_or_change_a_sum(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from((SIZE, FOUR)))
    run = ScriptedRun(size, honest=2)
    phase = data.draw(st.sampled_from((*SETTING_UP, *IN_ROUND, "agree")))
    if phase == "agree":
        run.carrier.misbehave("CZ", "contribute", *[silent] * ATTEMPTS)

    def damage(frame: bytes) -> bytes:
        reply = bytearray(run.carrier.honest("BE", frame))
        position = data.draw(st.integers(0, len(reply) - 1))
        reply[position] ^= data.draw(st.integers(1, 255))
        return bytes(reply)

    run.carrier.misbehave("BE", phase, damage)
    outcome = outcome_of(run)
    if isinstance(outcome, SetUpFailed):
        assert "BE" in outcome.causes
    elif isinstance(outcome.outcome, OpenedSum):
        outside = sorted({*NAMES[:size]} - {*outcome.outcome.countries})
        opened(outcome, size, *outside)


@settings(max_examples=examples(40), deadline=None)
@given(phase=st.sampled_from((*SETTING_UP, *IN_ROUND)), reply=st.binary(max_size=200))
def test_arbitrary_replies_are_reported_as_causes_without_a_crash(phase: str, reply: bytes) -> None:
    run = ScriptedRun()
    run.carrier.misbehave("BE", phase, lambda _: reply)
    assert set(outcome_of(run).causes) == {"BE"}
