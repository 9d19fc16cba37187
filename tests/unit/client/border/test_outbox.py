"""How long a node stores a run's replies: the bytes for a while, their places for ever."""

import json
from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import select

from client.border.failpoints import Failpoint
from client.node import Node
from client.state.run_expiry import LONGEST_OPEN, LONGEST_SILENCE
from client.state.tables import journal, runs
from governance.runtime.database import transaction
from protocols.errors import ReasonCode
from protocols.private_sum.coordinator_round import CoordinatorRound, OpenedSum
from protocols.proto.round_pb2 import RequestBody
from protocols.tasks.layout import vector_to_bytes
from protocols.wire.channel import LinkFault
from protocols.wire.encoding import digest
from tests.support.documents import raw_key, training_fields
from tests.support.node_federation import (
    NodeFederation,
    Run,
    altered_request,
    code_of,
    log_lines,
)
from tests.support.zero_noise import CountedZeroNoise

ROUNDS = 4
TRAINING = {"id": "who-is-ill"} | training_fields(ROUNDS)


class Trained:
    """A finished run of four rounds, with the requests of each round."""

    def __init__(self, federation: NodeFederation) -> None:
        self.federation, self.noise = federation, CountedZeroNoise()
        study = federation.approved(**TRAINING)
        self.run: Run = federation.ready(study)
        self.node: Node = federation.restart("DK", noise=self.noise)
        model = vector_to_bytes(np.zeros(study.mechanisms[1].dimension))
        self.rounds: list[CoordinatorRound] = []
        for number in range(1, ROUNDS + 1):
            self.rounds.append(self.run.contributed(number, "train", model))
            self._answer(self.rounds[-1])

    def _answer(self, coordinator_round: CoordinatorRound) -> None:
        for country in self.run.terms.roster:
            request = coordinator_round.answer_request(country)
            coordinator_round.take_answer(country, self.federation.nodes[country].handle(request))
        assert isinstance(coordinator_round.open(), OpenedSum)

    def repeated(self, number: int) -> ReasonCode | None:
        """Return the node's answer to the repeated contribute request of a round."""
        return code_of(self.node.handle(self.rounds[number - 1].contribute_request("DK")))

    def kept(self) -> set[tuple[int, str]]:
        """Return the places whose replies are still stored."""
        query = select(journal.c.round, journal.c.phase).where(journal.c.reply.is_not(None))
        with transaction(self.node.parts.engine) as connection:
            return {(row.round, row.phase) for row in connection.execute(query)}

    def later(self, pause: timedelta) -> None:
        """Let time pass, and the node do its upkeep."""
        self.federation.later(pause)
        self.node.do_upkeep()


@pytest.fixture
def trained(federation: NodeFederation) -> Trained:
    return Trained(federation)


def test_the_replies_of_two_rounds_and_all_places_stay_stored(trained: Trained) -> None:
    """An earlier round is refused: its noise is not drawn again, and nothing is charged."""
    phases = ("contribute", "answer")
    assert trained.kept() == {(number, phase) for number in (3, 4) for phase in phases}
    with transaction(trained.node.parts.engine) as connection:
        places = connection.execute(select(journal.c.round, journal.c.phase)).all()
    assert len(places) == 3 + 2 * ROUNDS
    charged = trained.node.parts.ledger.entries()
    assert [trained.repeated(number) for number in (1, 2)] == [ReasonCode.STALE] * 2
    assert [trained.repeated(number) for number in (3, 4)] == [None, None]
    assert trained.noise.draws == ROUNDS
    assert trained.node.parts.ledger.entries() == charged


def test_no_copy_of_a_former_state_stays_in_the_write_ahead_log(federation: NodeFederation) -> None:
    """With one, a thief of the node would have the mask keys of rounds that were answered."""
    study = federation.approved(**TRAINING)
    run, node = federation.ready(study), federation.nodes["DK"]
    log = federation.home("DK").database.with_name("state.db-wal")
    begun = run.contributed(1, "train", vector_to_bytes(np.zeros(study.mechanisms[1].dimension)))
    assert log.stat().st_size == 0
    before = node.parts.runs.live(run.id).state
    node.handle(begun.answer_request("DK"))
    assert log.stat().st_size == 0
    assert b"masks" in before
    assert json.loads(node.parts.runs.live(run.id).state)["open_round"] is None


def test_an_ended_run_repeats_replies_for_a_week_and_loses_its_secrets_at_once(
    trained: Trained,
) -> None:
    with transaction(trained.node.parts.engine) as connection:
        assert connection.execute(select(runs.c.state)).scalars().all() == [None]
    trained.later(LONGEST_SILENCE - timedelta(hours=1))
    assert trained.repeated(ROUNDS) is None
    trained.later(timedelta(hours=2))
    assert trained.kept() == set()
    assert trained.repeated(ROUNDS) is ReasonCode.STALE
    assert trained.noise.draws == ROUNDS


class Agreed(Trained):
    """A run whose second round continues without PT, once DK has agreed to that."""

    def __init__(self, federation: NodeFederation) -> None:
        self.federation, self.noise = federation, CountedZeroNoise()
        self.study = federation.approved(**TRAINING)
        self.run = federation.ready(self.study)
        self.node = federation.restart("DK", noise=self.noise)
        self.model = vector_to_bytes(np.zeros(self.study.mechanisms[1].dimension))
        self.rounds = [self.run.contributed(1, "train", self.model)]
        self._answer(self.rounds[0])
        self.rounds.append(self.run.contributed(2, "train", self.model, without={"PT"}))
        self.rounds[1].close()
        self.asked = self.rounds[1].agree_request("DK")
        self.said = self.node.handle(self.asked)


@pytest.fixture
def agreed(federation: NodeFederation) -> Agreed:
    return Agreed(federation)


def test_an_agree_reply_is_stored_before_it_is_sent_and_repeated_unchanged(agreed: Agreed) -> None:
    assert code_of(agreed.said) is None
    assert (2, "agree") in agreed.kept()
    assert agreed.node.handle(agreed.asked) == agreed.said
    agreed.node = agreed.federation.restart("DK", noise=agreed.noise)
    assert agreed.node.handle(agreed.asked) == agreed.said
    agreed.rounds[1].take_assent("DK", agreed.said)


@pytest.mark.parametrize("restarted", [False, True])
def test_another_set_is_not_signed_in_the_same_round(agreed: Agreed, *, restarted: bool) -> None:
    def without_no(body: RequestBody) -> None:
        body.agree.countries[:] = ["DK", "EE", "PT"]

    if restarted:
        agreed.node = agreed.federation.restart("DK", noise=agreed.noise)
    before = agreed.node.parts.runs.live(agreed.run.id).state
    other = altered_request(agreed.asked, without_no, raw_key(1))
    assert code_of(agreed.node.handle(other)) is ReasonCode.STALE
    assert agreed.node.parts.runs.live(agreed.run.id).state == before


def test_the_log_names_the_signed_set_and_nothing_from_a_record(agreed: Agreed) -> None:
    lines = log_lines(agreed.node)
    (entry,) = (json.loads(line)["entry"] for line in lines if '"set-agreed"' in line)
    assert entry["reason"] == "3 of 4 countries, without PT"
    assert (entry["round"], entry["phase"], entry["run"]) == (2, "agree", agreed.run.id)
    assert entry["body"] == digest(agreed.said)
    assert (entry["actor"], entry["outcome"]) == ("DK", "done")
    assert len(agreed.node.parts.ledger.entries()) == 2


def test_an_agree_reply_is_repeated_as_long_as_its_round_is(agreed: Agreed) -> None:
    for number in (3, 4):
        coordinator_round = agreed.run.contributed(number, "train", agreed.model)
        known = code_of(agreed.node.handle(agreed.asked))
        assert known is (None if number == 3 else ReasonCode.STALE)
        agreed._answer(coordinator_round)
    assert (2, "agree") not in agreed.kept()
    assert agreed.run.id not in {run.run for run in agreed.node.parts.runs.summaries(live=True)}


def test_a_country_that_missed_rounds_ends_its_run_with_the_last_answer(agreed: Agreed) -> None:
    """PT was absent in rounds 2 and 3; its run ends with the last answer all the same."""
    missed = agreed.federation.nodes["PT"]
    agreed.run.sum(3, "train", agreed.model, without={"PT"})
    last = agreed.run.contributed(4, "train", agreed.model)
    assert missed.parts.runs.summaries(live=True)
    agreed._answer(last)
    for node in agreed.federation.nodes.values():
        assert not node.parts.runs.summaries(live=True)
        with transaction(node.parts.engine) as connection:
            assert connection.execute(select(runs.c.state)).scalars().all() == [None]


def test_a_country_that_missed_the_last_round_keeps_its_secrets_for_a_week_at_most(
    agreed: Agreed,
) -> None:
    agreed.run.sum(3, "train", agreed.model)
    agreed.run.sum(4, "train", agreed.model, without={"PT"})
    agreed.node = agreed.federation.nodes["PT"]
    assert agreed.node.parts.runs.summaries(live=True)
    agreed.later(LONGEST_SILENCE + timedelta(hours=1))
    assert not agreed.node.parts.runs.summaries(live=True)


def test_the_replies_of_a_withdrawn_run_are_erased_at_once(federation: NodeFederation) -> None:
    study = federation.approved(**TRAINING)
    federation.ready(study)
    federation.withdraw("DK", study)
    node = federation.nodes["DK"]
    node.do_upkeep()
    with transaction(node.parts.engine) as connection:
        replies = connection.execute(select(journal.c.reply)).scalars().all()
    assert replies == [None, None, None]


def test_the_failpoints_of_a_reply_are_reached_in_order(federation: NodeFederation) -> None:
    study = federation.approved(**TRAINING)
    steps: list[str] = []
    federation.restart("DK", failpoint=steps.append)
    run = federation.ready(study)
    outbox = [
        step for step in Failpoint if step.startswith("outbox/") and step != Failpoint.OUTBOX_ENDED
    ]
    outbox.append(Failpoint.HEAD_MOVED)
    assert steps[:9] == [step for step in Failpoint if step.startswith("floor/")]
    assert steps[9 : 9 + len(outbox)] == outbox
    steps.clear()
    model = vector_to_bytes(np.zeros(study.mechanisms[1].dimension))
    run.contributed(1, "train", model)
    assert steps == [*[step for step in Failpoint if step.startswith("door/")], *outbox]


def test_a_round_without_an_answer_for_a_day_is_erased_and_the_next_one_opens(
    agreed: Agreed,
) -> None:
    state = agreed.node.parts.runs.live(agreed.run.id).state
    assert json.loads(state)["open_round"]["masks"]
    agreed.later(LONGEST_OPEN - timedelta(hours=1))
    assert agreed.node.parts.runs.live(agreed.run.id).state == state
    agreed.later(timedelta(hours=2))
    assert json.loads(agreed.node.parts.runs.live(agreed.run.id).state)["open_round"] is None
    agreed.federation.sync()
    requests = {one: agreed.rounds[1].agree_request(one) for one in agreed.rounds[1].close()}
    for country, frame in requests.items():
        agreed.rounds[1].take_assent(country, agreed.federation.nodes[country].handle(frame))
    assert code_of(agreed.node.handle(agreed.rounds[1].answer_request("DK"))) is ReasonCode.STALE
    agreed.run.sum(3, "train", agreed.model)


def test_silence_ends_a_run_although_the_coordinator_is_away(
    agreed: Agreed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Erasing secrets needs neither the coordinator nor its documents."""

    def away() -> None:
        raise LinkFault("The coordinator cannot be reached")

    monkeypatch.setattr(agreed.node, "sync", away)
    agreed.federation.documents.now += LONGEST_SILENCE + timedelta(hours=1)
    agreed.node.do_upkeep()
    assert not agreed.node.parts.runs.summaries(live=True)


def test_a_withdrawal_ends_a_run_although_the_coordinator_is_away(
    federation: NodeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = federation.approved(**TRAINING)
    federation.ready(study)
    node = federation.nodes["DK"]

    def away() -> None:
        raise LinkFault("The coordinator cannot be reached")

    monkeypatch.setattr(node, "sync", away)
    federation.withdraw("DK", study)
    node.do_upkeep()
    assert not node.parts.runs.summaries(live=True)
