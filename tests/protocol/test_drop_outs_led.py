"""Countries that drop out of a round that the coordinator's own procedure runs.

The same cases as in `test_drop_outs.py`, over a carrier on which missing countries do not reply:
the sum is exact or the round void, each country gets a bounded number of requests, and the next
round opens.
"""

from itertools import combinations

import pytest

from keys.identity import SigningKey
from protocols.private_sum.coordinator_round import OpenedSum, VoidRound
from protocols.proto.round_pb2 import Answer, Reply
from protocols.wire.signed_message import serialise
from server.runs.rounds import SetUpFailed
from tests.support.direct_carrier import DrivenRun
from tests.support.protocol_world import ProtocolWorld, terms_of, with_body

SET_UP = ("bundle", "encapsulate", "confirm")
STAGES = ("contribute", "agree", "answer")
SETTINGS = [(2, 0, 2), (3, 0, 2), (3, 1, 2), (4, 0, 2), (4, 1, 2), (4, 2, 2), (5, 1, 2)]
LARGE = [(5, 0, 2), (5, 0, 4), (5, 2, 2), (6, 0, 2), (6, 1, 2), (6, 2, 3), (6, 4, 2)]


def subsets(size: int) -> list[tuple[str, ...]]:
    roster = terms_of(size).roster
    return [gone for number in range(1, size + 1) for gone in combinations(roster, number)]


def require_stage(stage: str, size: int, colluding: int, honest: int) -> None:
    """Remove every set of countries from a stage on, each in a separate world."""
    for gone in subsets(size):
        run = DrivenRun(ProtocolWorld.ready(size, colluding=colluding, honest=honest))
        run.drop_replies(gone, *STAGES[STAGES.index(stage) :])
        threshold = (size + colluding) // 2 + 1
        needed = max(honest + colluding, threshold) if stage == "contribute" else threshold
        remaining = tuple(
            country for country in run.roster if stage != "contribute" or country not in gone
        )
        report = run.round(1)
        if size - len(gone) >= needed:
            run.require(report, remaining)
        else:
            assert not isinstance(report.outcome, OpenedSum)
        assert set(report.causes) == set(gone)
        run.carrier._misbehaviour.clear()
        run.require(run.round(2), run.roster)


@pytest.mark.parametrize("stage", ["contribute", "answer"])
@pytest.mark.parametrize(("size", "colluding", "honest"), SETTINGS, ids=str)
def test_any_set_of_countries_may_fall_silent_at_any_stage(
    size: int, colluding: int, honest: int, stage: str
) -> None:
    require_stage(stage, size, colluding, honest)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["contribute", "answer"])
@pytest.mark.parametrize(("size", "colluding", "honest"), LARGE, ids=str)
def test_any_set_of_six_may_fall_silent_at_any_stage(
    size: int, colluding: int, honest: int, stage: str
) -> None:
    require_stage(stage, size, colluding, honest)


@pytest.mark.parametrize("stage", ["agree", "answer"])
@pytest.mark.parametrize(
    ("size", "colluding", "honest"), [(4, 1, 2), (5, 0, 2), (5, 1, 2)], ids=str
)
def test_a_round_is_void_if_one_country_misses_it_and_others_fall_silent_later(
    size: int, colluding: int, honest: int, stage: str
) -> None:
    first = terms_of(size).roster[0]
    for gone in subsets(size):
        if first in gone:
            continue
        run = DrivenRun(ProtocolWorld.ready(size, colluding=colluding, honest=honest))
        run.drop_replies((first,), "contribute")
        run.drop_replies(gone, *STAGES[STAGES.index(stage) :])
        report = run.round(1)
        assert not isinstance(report.outcome, OpenedSum)
        assert set(report.causes) == {first, *gone}
        run.carrier._misbehaviour.clear()
        run.require(run.round(2), run.roster)


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("step", SET_UP)
def test_countries_that_are_silent_in_set_up_are_named_and_no_round_begins(
    step: str, size: int
) -> None:
    for gone in subsets(size):
        run = DrivenRun(ProtocolWorld.of(size))
        run.drop_replies(gone, step)
        with pytest.raises(SetUpFailed) as fault:
            run.driver.set_up()
        assert set(fault.value.causes) == set(gone)
        assert not any(phase == "contribute" for _, phase in run.carrier.asked)


@pytest.mark.parametrize("size", [3, 5])
def test_an_answer_with_a_forged_signature_is_named_whether_or_not_the_sum_opens(
    size: int,
) -> None:
    """With three countries and c = 1 every answer is needed; of five, four are enough."""
    run = DrivenRun(ProtocolWorld.ready(size, colluding=1, honest=2))

    def forged(frame: bytes) -> bytes:
        body = Reply.FromString(run.carrier.honest("AT", frame)).answer
        answer = Answer.FromString(body.body)
        answer.shares = bytes(len(answer.shares))
        return serialise(Reply(answer=with_body(body, serialise(answer), SigningKey.generate())))

    run.carrier.misbehave("AT", "answer", forged)
    report = run.round(1)
    assert isinstance(report.outcome, VoidRound) == (size == 3)
    assert report.causes == {"AT": "its answer was not signed by it"}
    run.require(run.round(2), run.roster)
