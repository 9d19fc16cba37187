"""The checks of answers: shares against commitments, everything else by its signature."""

import os
from collections.abc import Iterable, Mapping

import pytest

from keys.identity import SigningKey
from protocols.errors import ReasonCode, Refusal
from protocols.private_sum import shares
from protocols.private_sum.coordinator_round import CoordinatorRound, OpenedSum, VoidRound
from protocols.private_sum.coordinator_view import CoordinatorView
from protocols.private_sum.messages import SEALING_KEY_BYTES, SHARE_BYTES, read_reply
from protocols.private_sum.share_faults import HANDED_IN, SEALED_ANOTHER
from protocols.private_sum.unmasking_answers import UnmaskingAnswers
from protocols.proto.round_pb2 import Answer, Reply, Signed
from protocols.wire.signed_message import serialise
from tests.support.protocol_world import (
    IDENTITIES,
    ZEROS,
    ProtocolWorld,
    with_body,
)

SUM = [15] * 5
STRANGER = SigningKey.generate()


class Six:
    """A round of six countries that contribute 0 to 5; any four answers open it."""

    def __init__(self) -> None:
        self.world = ProtocolWorld.ready(6, colluding=0, honest=2)
        self.roster = self.world.terms.roster
        self.round_ = self.world.coordinator.begin_round(1, "train", b"model")
        for index, country in enumerate(self.roster):
            self.world.contribute(self.round_, country, ZEROS + index)

    def answered(self, countries: Iterable[str]) -> CoordinatorRound:
        """Let these countries answer."""
        for country in countries:
            self.world.answer(self.round_, country)
        return self.round_

    def all_answers_with_lies(
        self, wrong: Mapping[str, Iterable[str]], keys: Mapping[str, SigningKey] = IDENTITIES
    ) -> CoordinatorRound:
        """Let all answer; the holders in `wrong` give wrong shares of these owners.

        Their answers are signed with `keys`.
        """
        for country in self.roster:
            reply = self.world.countries[country].answer(self.round_.answer_request(country))
            if country in wrong:
                reply = self.with_other_shares(reply, wrong[country], keys[country])
            self.round_.take_answer(country, reply)
        return self.round_

    def with_other_shares(
        self, reply: bytes, owners: Iterable[str], key: SigningKey, unopenable: Iterable[str] = ()
    ) -> bytes:
        """Return an answer with other shares of these owners, signed with `key`."""
        body = Reply.FromString(reply).answer
        answer = Answer.FromString(body.body)
        given = bytearray(answer.shares)
        for owner in owners:
            start = SHARE_BYTES * self.roster.index(owner)
            given[start : start + SHARE_BYTES] = shares.draw_element(os.urandom)
        answer.shares = bytes(given)
        answer.unopenable.extend(unopenable)
        answer.keys = bytes(SEALING_KEY_BYTES * len(answer.unopenable))
        return serialise(Reply(answer=with_body(body, serialise(answer), key)))


def require_sum(round_: CoordinatorRound, unopenable: tuple[tuple[str, str], ...] = ()) -> None:
    result = round_.open()
    assert isinstance(result, OpenedSum)
    assert (result.values.tolist(), result.unopenable) == (SUM, unopenable)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the countries whose signatures are checked, and "commitments" for these."""
    checks: list[str] = []
    verify, sift = CoordinatorView.verify, UnmaskingAnswers.sift

    def verified(view: CoordinatorView, message: Signed, country: str) -> None:
        checks.append(country)
        verify(view, message, country)

    def sifted(answers: UnmaskingAnswers, commitments: Mapping[str, bytes]) -> None:
        checks.append("commitments")
        sift(answers, commitments)

    monkeypatch.setattr(CoordinatorView, "verify", verified)
    monkeypatch.setattr(UnmaskingAnswers, "sift", sifted)
    return checks


def test_nothing_is_checked_while_every_seed_comes_out_right(checked: list[str]) -> None:
    six = Six()
    checked.clear()
    require_sum(six.answered(six.roster))
    assert checked == []


def test_everything_is_checked_if_a_seed_does_not_come_out(checked: list[str]) -> None:
    six = Six()
    checked.clear()
    require_sum(six.all_answers_with_lies({"AT": ["BE"]}), (("AT", "BE"),))
    assert checked == ["commitments", *six.roster]


@pytest.mark.parametrize("holder", ["AT", "BE", "CZ", "DK"])
def test_a_wrong_share_among_the_first_t_is_named_and_replaced(holder: str) -> None:
    require_sum(Six().all_answers_with_lies({holder: ["BE"]}), ((holder, "BE"),))


@pytest.mark.parametrize(
    "wrong", [{"EE": ["AT"]}, {"FI": ["AT"]}, {"EE": ["AT"], "FI": ["AT"]}], ids=str
)
def test_wrong_shares_beyond_the_first_t_do_no_harm_and_are_not_checked(
    wrong: dict[str, list[str]],
) -> None:
    require_sum(Six().all_answers_with_lies(wrong))


def test_all_wrong_shares_are_named_once_the_shares_are_checked() -> None:
    """DK's share of EE alone would not have been found."""
    wrong = {"AT": ["CZ"], "DK": ["EE"], "FI": ["CZ"]}
    require_sum(Six().all_answers_with_lies(wrong), (("AT", "CZ"), ("DK", "EE"), ("FI", "CZ")))


def test_too_many_wrong_shares_of_a_seed_void_the_round_and_name_their_senders() -> None:
    """The owner of the seed, CZ, did nothing wrong."""
    result = Six().all_answers_with_lies({"AT": ["CZ"], "BE": ["CZ"], "FI": ["CZ"]}).open()
    reason = "a country's seed cannot be recovered from its shares"
    assert result == VoidRound(reason, ("AT", "BE", "FI"))


def test_consistent_shares_of_another_seed_are_refused() -> None:
    """The first t holders agree on a seed that its owner did not sign; they are named, not it."""
    six = Six()
    round_ = six.answered(six.roster)
    other_shares = shares.split(shares.draw_element(os.urandom), 4, 6, os.urandom)
    for country, share in zip(six.roster[:4], other_shares, strict=False):
        round_._answers._shares[country]["EE"] = share
    assert round_.open() == VoidRound(
        "a country's seed cannot be recovered from its shares", six.roster[:4]
    )
    assert round_._answers.unopenable(("EE",)) == tuple(
        (country, "EE") for country in six.roster[:4]
    )


def test_an_owner_that_committed_to_other_shares_than_it_gave_is_named() -> None:
    """Its holders hand in nothing, and the keys that they show prove it."""
    six = Six()
    six.round_._commitments["FI"] = bytes(len(six.round_._commitments["FI"]))
    round_ = six.all_answers_with_lies({"AT": ["BE"]})
    reason = "a country's seed cannot be recovered from its shares"
    assert round_.open() == VoidRound(reason, ("AT", "FI"))
    assert round_.share_faults.convicted == {"AT": HANDED_IN, "FI": SEALED_ANOTHER}


@pytest.mark.parametrize("forged", [("AT",), ("FI",), ("AT", "BE")], ids="-".join)
def test_forged_answers_neither_stop_a_round_nor_name_anybody(
    forged: tuple[str, ...],
) -> None:
    six = Six()
    keys = dict.fromkeys(forged, STRANGER)
    round_ = six.all_answers_with_lies(dict.fromkeys(forged, six.roster), keys)
    require_sum(round_)
    counted = round_.answered
    assert counted == (six.roster if forged == ("FI",) else six.roster[len(forged) :])


def test_true_answers_may_still_follow_if_too_few_signed_ones_are_left() -> None:
    six = Six()
    round_ = six.answered(("CZ", "DK", "EE"))
    absent = {country: six.world.countries[country] for country in ("AT", "BE")}
    true = {country: run.answer(round_.answer_request(country)) for country, run in absent.items()}
    for country in absent:
        round_.take_answer(country, six.with_other_shares(true[country], six.roster, STRANGER))
    assert round_.open() == VoidRound("too few countries answered", ("AT", "BE", "FI"))
    assert round_.answered == ("CZ", "DK", "EE")
    round_.take_answer("AT", true["AT"])
    require_sum(round_)


def test_an_answer_for_another_round_is_malformed() -> None:
    six = Six()
    reply = six.world.countries["AT"].answer(six.round_.answer_request("AT"))
    body = read_reply(reply, "AT", "answer").answer
    answer = Answer.FromString(body.body)
    answer.round += 1
    other = serialise(Reply(answer=with_body(body, serialise(answer), IDENTITIES["AT"])))
    with pytest.raises(Refusal) as refusal:
        six.round_.take_answer("AT", other)
    assert refusal.value.code is ReasonCode.MALFORMED
    six.round_.take_answer("AT", reply)


def test_only_the_holder_can_report_that_a_share_does_not_open() -> None:
    six = Six()
    reply = six.world.countries["AT"].answer(six.round_.answer_request("AT"))
    with pytest.raises(Refusal) as refusal:
        six.round_.take_answer("AT", six.with_other_shares(reply, (), STRANGER, unopenable=["BE"]))
    assert refusal.value.code is ReasonCode.NOT_AUTHENTIC
    assert six.round_.answered == ()


def test_mask_keys_are_accepted_from_their_country_only() -> None:
    world = ProtocolWorld.ready(4, colluding=0, honest=2)
    round_ = world.coordinator.begin_round(1, "train", b"model")
    for country in ("AT", "BE", "CZ"):
        world.contribute(round_, country)
    for country in round_.close():
        world.agree(round_, country)
    true = world.countries["AT"].answer(round_.answer_request("AT"))
    answer = read_reply(true, "AT", "answer").answer
    forged = serialise(Reply(answer=with_body(answer, answer.body, STRANGER)))
    with pytest.raises(Refusal) as refusal:
        round_.take_answer("AT", forged)
    assert refusal.value.code is ReasonCode.NOT_AUTHENTIC
    round_.take_answer("AT", true)
    assert round_.answered == ("AT",)
