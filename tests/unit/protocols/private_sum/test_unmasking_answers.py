"""What an answer hangs on: shares on what their owners committed to, all else on its signature."""

import os
from collections.abc import Iterable, Mapping

import pytest

from keys.identity import SigningKey
from protocols.errors import ReasonCode, Refusal
from protocols.private_sum import shares
from protocols.private_sum.coordinator_round import CoordinatorRound, OpenedSum, VoidRound
from protocols.private_sum.coordinator_view import CoordinatorView
from protocols.private_sum.messages import SHARE_BYTES, read_reply
from protocols.private_sum.unmasking_answers import UnmaskingAnswers
from protocols.proto.round_pb2 import Answer, Reply, Signed
from protocols.wire.signed_message import serialise
from tests.support.protocol_world import (
    IDENTITIES,
    ZEROS,
    ProtocolWorld,
    spoken,
)

SUM = [15] * 5
STRANGER = SigningKey.generate()


class Six:
    """A round of six, who contribute 0 to 5, that any four answers open."""

    def __init__(self) -> None:
        self.world = ProtocolWorld.ready(6, colluding=0, honest=2)
        self.roster = self.world.terms.roster
        self.opened = self.world.coordinator.begin_round(1, "train", b"model")
        for place, country in enumerate(self.roster):
            self.world.contribute(self.opened, country, ZEROS + place)

    def answered(self, countries: Iterable[str]) -> CoordinatorRound:
        """Let these countries answer."""
        for country in countries:
            self.world.answer(self.opened, country)
        return self.opened

    def lied(
        self, wrong: Mapping[str, Iterable[str]], keys: Mapping[str, SigningKey] = IDENTITIES
    ) -> CoordinatorRound:
        """Let all answer; the holders in `wrong` give shares that are none of these owners'.

        What they say is signed with `keys`.
        """
        for country in self.roster:
            reply = self.world.countries[country].answer(self.opened.answer_request(country))
            if country in wrong:
                reply = self.retold(reply, wrong[country], keys[country])
            self.opened.take_answer(country, reply)
        return self.opened

    def retold(
        self, reply: bytes, owners: Iterable[str], key: SigningKey, unopenable: Iterable[str] = ()
    ) -> bytes:
        """Return an answer with other shares of these owners, signed with `key`."""
        said = Reply.FromString(reply).answer
        answer = Answer.FromString(said.body)
        given = bytearray(answer.shares)
        for owner in owners:
            place = SHARE_BYTES * self.roster.index(owner)
            given[place : place + SHARE_BYTES] = shares.draw_element(os.urandom)
        answer.shares = bytes(given)
        answer.unopenable.extend(unopenable)
        return serialise(Reply(answer=spoken(said, serialise(answer), key)))


def require_sum(opened: CoordinatorRound, unopenable: tuple[tuple[str, str], ...] = ()) -> None:
    result = opened.open()
    assert isinstance(result, OpenedSum)
    assert (result.values.tolist(), result.unopenable) == (SUM, unopenable)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the countries whose signatures are looked at, and "commitments" for these."""
    seen: list[str] = []
    verify, sift = CoordinatorView.verify, UnmaskingAnswers.sift

    def verified(view: CoordinatorView, message: Signed, country: str) -> None:
        seen.append(country)
        verify(view, message, country)

    def sifted(answers: UnmaskingAnswers, commitments: Mapping[str, bytes]) -> None:
        seen.append("commitments")
        sift(answers, commitments)

    monkeypatch.setattr(CoordinatorView, "verify", verified)
    monkeypatch.setattr(UnmaskingAnswers, "sift", sifted)
    return seen


def test_nothing_is_looked_at_while_every_seed_comes_out_right(looked_at: list[str]) -> None:
    six = Six()
    looked_at.clear()
    require_sum(six.answered(six.roster))
    assert looked_at == []


def test_all_is_looked_at_where_a_seed_does_not_come_out(looked_at: list[str]) -> None:
    six = Six()
    looked_at.clear()
    require_sum(six.lied({"AT": ["BE"]}), (("AT", "BE"),))
    assert looked_at == ["commitments", *six.roster]


@pytest.mark.parametrize("holder", ["AT", "BE", "CZ", "DK"])
def test_a_wrong_share_among_the_first_t_is_named_and_another_takes_its_place(holder: str) -> None:
    require_sum(Six().lied({holder: ["BE"]}), ((holder, "BE"),))


@pytest.mark.parametrize(
    "wrong", [{"EE": ["AT"]}, {"FI": ["AT"]}, {"EE": ["AT"], "FI": ["AT"]}], ids=str
)
def test_wrong_shares_beyond_the_first_t_do_no_harm_and_are_not_looked_at(
    wrong: dict[str, list[str]],
) -> None:
    require_sum(Six().lied(wrong))


def test_all_wrong_shares_are_named_once_one_is_looked_for() -> None:
    """DK's of EE alone would not have been found."""
    wrong = {"AT": ["CZ"], "DK": ["EE"], "FI": ["CZ"]}
    require_sum(Six().lied(wrong), (("AT", "CZ"), ("DK", "EE"), ("FI", "CZ")))


def test_too_many_wrong_shares_of_a_seed_void_the_round_and_name_its_owner() -> None:
    result = Six().lied({"AT": ["CZ"], "BE": ["CZ"], "FI": ["CZ"]}).open()
    assert result == VoidRound("a country's seed cannot be recovered from its shares", ("CZ",))


def test_shares_of_another_seed_that_fit_each_other_are_not_taken() -> None:
    """The first t holders agree on a seed that its owner did not sign: all of them are named."""
    six = Six()
    opened = six.answered(six.roster)
    made = shares.split(shares.draw_element(os.urandom), 4, 6, os.urandom)
    for country, share in zip(six.roster[:4], made, strict=False):
        opened._answers._shares[country]["EE"] = share
    assert opened.open() == VoidRound(
        "a country's seed cannot be recovered from its shares", ("EE",)
    )
    assert opened._answers.unopenable(("EE",)) == tuple((one, "EE") for one in six.roster[:4])


def test_a_seed_that_came_out_is_kept_where_another_one_is_looked_for() -> None:
    """FI has committed to other shares than it gave; t of them make the seed that it signed."""
    six = Six()
    six.opened._commitments["FI"] = bytes(len(six.opened._commitments["FI"]))
    opened = six.lied({"AT": ["BE"]})
    unopenable = (("AT", "BE"), *((one, "FI") for one in six.roster))
    require_sum(opened, tuple(sorted(unopenable)))


@pytest.mark.parametrize("forged", [("AT",), ("FI",), ("AT", "BE")], ids="-".join)
def test_answers_that_their_countries_did_not_sign_neither_stop_a_round_nor_name_anybody(
    forged: tuple[str, ...],
) -> None:
    six = Six()
    keys = dict.fromkeys(forged, STRANGER)
    opened = six.lied(dict.fromkeys(forged, six.roster), keys)
    require_sum(opened)
    counted = opened.answered
    assert counted == (six.roster if forged == ("FI",) else six.roster[len(forged) :])


def test_where_too_few_signed_answers_are_left_the_true_ones_may_still_come() -> None:
    six = Six()
    opened = six.answered(("CZ", "DK", "EE"))
    absent = {one: six.world.countries[one] for one in ("AT", "BE")}
    true = {one: run.answer(opened.answer_request(one)) for one, run in absent.items()}
    for country in absent:
        opened.take_answer(country, six.retold(true[country], six.roster, STRANGER))
    assert opened.open() == VoidRound("too few countries answered", ("AT", "BE", "FI"))
    assert opened.answered == ("CZ", "DK", "EE")
    opened.take_answer("AT", true["AT"])
    require_sum(opened)


def test_an_answer_for_another_round_is_malformed() -> None:
    six = Six()
    reply = six.world.countries["AT"].answer(six.opened.answer_request("AT"))
    said = read_reply(reply, "AT", "answer").answer
    answer = Answer.FromString(said.body)
    answer.round += 1
    other = serialise(Reply(answer=spoken(said, serialise(answer), IDENTITIES["AT"])))
    with pytest.raises(Refusal) as refusal:
        six.opened.take_answer("AT", other)
    assert refusal.value.code is ReasonCode.MALFORMED
    six.opened.take_answer("AT", reply)


def test_that_a_share_does_not_open_is_believed_of_its_holder_only() -> None:
    six = Six()
    reply = six.world.countries["AT"].answer(six.opened.answer_request("AT"))
    with pytest.raises(Refusal) as refusal:
        six.opened.take_answer("AT", six.retold(reply, (), STRANGER, unopenable=["BE"]))
    assert refusal.value.code is ReasonCode.NOT_AUTHENTIC
    assert six.opened.answered == ()


def test_mask_keys_are_believed_of_their_country_only() -> None:
    world = ProtocolWorld.ready(4, colluding=0, honest=2)
    opened = world.coordinator.begin_round(1, "train", b"model")
    for country in ("AT", "BE", "CZ"):
        world.contribute(opened, country)
    for country in opened.close():
        world.agree(opened, country)
    true = world.countries["AT"].answer(opened.answer_request("AT"))
    said = read_reply(true, "AT", "answer").answer
    forged = serialise(Reply(answer=spoken(said, said.body, STRANGER)))
    with pytest.raises(Refusal) as refusal:
        opened.take_answer("AT", forged)
    assert refusal.value.code is ReasonCode.NOT_AUTHENTIC
    opened.take_answer("AT", true)
    assert opened.answered == ("AT",)
