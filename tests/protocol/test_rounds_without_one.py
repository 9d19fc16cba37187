"""Real nodes, one of which drops out of a round: the others continue, and it comes back.

Four countries, c = 1 and h = 2: t is three, so that one may be missing.
"""

import numpy as np
import pytest

from governance.documents.study import Study
from protocols.errors import ReasonCode
from protocols.private_sum.coordinator_round import CoordinatorRound, OpenedSum, VoidRound
from protocols.tasks.layout import vector_to_bytes
from tests.support.documents import COUNTRIES, training_fields
from tests.support.node_federation import NodeFederation, Run, code_of
from tests.support.zero_noise import CountedZeroNoise

REST = ("DK", "EE", "NO")
ROUNDS = 4
TRAINING = {"id": "who-is-ill"} | training_fields(ROUNDS)


class Training:
    """A training run, with what each country drew and was charged."""

    def __init__(self, federation: NodeFederation) -> None:
        self.federation = federation
        self.noise = {country: CountedZeroNoise() for country in COUNTRIES}
        study: Study = federation.approved(**TRAINING)
        self.run: Run = federation.ready(study)
        for country, noise in self.noise.items():
            federation.restart(country, noise=noise)
        self.model = vector_to_bytes(np.zeros(study.mechanisms[1].dimension))

    def restart(self, country: str) -> None:
        """Kill a node, and start it from its database."""
        self.federation.restart(country, noise=self.noise[country])

    def drawn(self) -> dict[str, int]:
        """Return for how many sums each country has drawn noise since its cohort count."""
        return {country: noise.draws for country, noise in self.noise.items()}

    def charged(self, country: str) -> list[str]:
        """Return the phases that a country's ledger was charged for the run."""
        entries = self.federation.nodes[country].parts.ledger.entries(run=self.run.id)
        return [entry.phase for entry in entries]

    def answered(self, round_: CoordinatorRound) -> OpenedSum | VoidRound:
        """Let all countries of the set answer, and open the sum."""
        for country in round_.close():
            request = round_.answer_request(country)
            round_.take_answer(country, self.federation.nodes[country].handle(request))
        return round_.open()


@pytest.fixture
def training(federation: NodeFederation) -> Training:
    return Training(federation)


def countries_of(result: OpenedSum | VoidRound) -> tuple[str, ...]:
    assert isinstance(result, OpenedSum), result
    return result.countries


def test_a_node_missing_in_round_two_takes_part_again_in_round_three(training: Training) -> None:
    assert countries_of(training.run.sum(1, "train", training.model)) == COUNTRIES
    training.federation.nodes["PT"].parts.engine.dispose()
    assert countries_of(training.run.sum(2, "train", training.model, without={"PT"})) == REST
    training.restart("PT")
    for number in (3, 4):
        assert countries_of(training.run.sum(number, "train", training.model)) == COUNTRIES
    assert training.drawn() == dict.fromkeys(REST, 4) | {"PT": 3}
    assert all(training.charged(country) == ["train"] for country in COUNTRIES)
    assert not any(
        node.parts.runs.summaries(live=True) for node in training.federation.nodes.values()
    )


@pytest.mark.parametrize("moment", ["contributed", "agreed", "answered"])
def test_a_node_killed_in_a_round_without_another_country_can_go_on(
    training: Training, moment: str
) -> None:
    round_ = training.run.contributed(1, "train", training.model, without={"PT"})
    drawn = training.drawn()
    if moment == "contributed":
        training.restart("EE")
    training.run.agreed(round_)
    if moment == "agreed":
        training.restart("EE")
    if moment == "answered":
        before = training.federation.nodes["EE"].handle(round_.answer_request("EE"))
        training.restart("EE")
        assert training.federation.nodes["EE"].handle(round_.answer_request("EE")) == before
    assert countries_of(training.answered(round_)) == REST
    assert training.drawn() == drawn
    assert training.charged("EE") == ["train"]


def test_every_message_of_such_a_round_is_repeated_byte_for_byte_after_a_crash(
    training: Training,
) -> None:
    round_ = training.run.contributed(1, "train", training.model, without={"PT"})
    training.run.agreed(round_)
    training.answered(round_)
    asks = (round_.contribute_request, round_.agree_request, round_.answer_request)
    frames = [ask("NO") for ask in asks]
    before = [training.federation.nodes["NO"].handle(frame) for frame in frames]
    training.restart("NO")
    assert [training.federation.nodes["NO"].handle(frame) for frame in frames] == before
    assert [code_of(reply) for reply in before] == [None] * 3


def test_a_contribution_after_closing_is_in_no_sum_and_the_next_round_has_all_countries(
    training: Training,
) -> None:
    round_ = training.run.contributed(1, "train", training.model, without={"PT"})
    request = round_.contribute_request("PT")
    training.run.agreed(round_)
    late = training.federation.nodes["PT"].handle(request)
    assert code_of(late) is None
    with pytest.raises(Exception, match="after the round was closed"):
        round_.take_contribution("PT", late)
    assert countries_of(training.answered(round_)) == REST
    assert countries_of(training.run.sum(2, "train", training.model)) == COUNTRIES


def test_a_country_that_signed_one_set_signs_no_other_after_a_crash(training: Training) -> None:
    """A coordinator that lost U asks for the roster in the same round: no country of U answers."""
    round_ = training.run.contributed(1, "train", training.model, without={"PT"})
    request = round_.contribute_request("PT")
    training.run.agreed(round_)
    for country in REST:
        training.restart(country)
    round_._chosen = None
    round_.take_contribution("PT", training.federation.nodes["PT"].handle(request))
    round_._assents.clear()
    for country in REST:
        reply = training.federation.nodes[country].handle(round_.answer_request(country))
        assert code_of(reply) is ReasonCode.ROSTER
    assert isinstance(round_.open(), VoidRound)


def test_a_round_is_void_if_a_second_country_is_missing(training: Training) -> None:
    round_ = training.run.contributed(1, "train", training.model, without={"PT", "EE"})
    round_.close()
    assert not round_.openable
    assert isinstance(round_.open(), VoidRound)
    reply = training.federation.nodes["DK"].handle(round_.agree_request("DK"))
    assert code_of(reply) is ReasonCode.ROSTER
    assert countries_of(training.run.sum(2, "train", training.model)) == COUNTRIES
