"""How the known answers travel, and what the coordinator's side of the page makes of them."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from protocols.proto import round_pb2 as pb
from tests.vectors.derivations import Pair, bind, verified
from tests.vectors.known import (
    ROSTER,
    ROUNDS,
    SET_UP,
    TERMS,
    contributions,
    each_country,
    each_round,
    mechanism_of,
    opening_of,
    pair_held,
    raw,
    reply,
    request,
    sealed_by,
)
from tests.vectors.seat import Alter, each_change

# ---- signed words ------------------------------------------------------------------------


def steps() -> Iterator[dict[str, dict[str, str]]]:
    """Requests and replies by country, of every step."""
    yield from SET_UP["said"].values()
    for held in ROUNDS:
        yield from (held[step] for step in ("contribute", "agree", "answer") if held[step])


def messages() -> Iterator[pb.Signed]:
    """Every signed message of the run, those inside others included."""
    for said in (one for step in steps() for one in step.values()):
        asked, replied = request(said).signed, reply(said)
        body = pb.RequestBody.FromString(asked.body)
        yield from (asked, *body.encapsulate.bundles, *body.confirm.encapsulations)
        yield from (*body.answer.heads, *body.answer.assents)
        yield said_in(replied)


def said_in(given: pb.Reply) -> pb.Signed:
    """The signed part of a reply."""
    beside = {"encapsulation": given.encapsulation.signed, "contribution": given.contribution.head}
    content = str(given.WhichOneof("content"))
    return beside[content] if content in beside else getattr(given, content)


def test_every_signature_verifies_and_none_of_another_place() -> None:
    count = 0
    for one in messages():
        place = one.context, one.phase, one.sender, one.receiver, one.body
        assert verified(TERMS.keys[one.sender], one.signature, bind(*place))
        moved = one.context, one.phase + 1, *place[2:]
        assert not verified(TERMS.keys[one.sender], one.signature, bind(*moved))
        count += 1
    assert count > 100


def test_every_country_is_asked_the_same_words() -> None:
    for said in steps():
        first, *others = [request(one).signed for one in said.values()]
        assert (first.sender, first.receiver) == ("coordinator", "roster")
        assert all(other == first for other in others)


# ---- joined parts ------------------------------------------------------------------------


def pair_of(a: str, b: str) -> dict[str, str]:
    return pair_held(Pair.of(a, b), SET_UP["pairs"])


def mac(sender: str, receiver: str) -> bytes:
    return raw(pair_of(sender, receiver)["mac_of_lower" if sender < receiver else "mac_of_higher"])


def without(name: str, countries: tuple[str, ...] = ROSTER) -> list[str]:
    return [one for one in countries if one != name]


@each_country
def test_ciphertexts_and_macs_stand_in_the_order_of_the_countries(name: str) -> None:
    said, others = SET_UP["said"], without(name)
    sent = b"".join(raw(pair_of(name, one)["ciphertext"]) for one in others if one > name)
    assert reply(said["encapsulate"][name]).encapsulation.ciphertexts == sent
    got = b"".join(raw(pair_of(one, name)["ciphertext"]) for one in others if one < name)
    assert request(said["confirm"][name]).parts == got
    body = pb.Confirmations(macs=b"".join(mac(name, one) for one in others))
    assert reply(said["confirm"][name]).confirmation.body == body.SerializeToString()
    for held in (one for one in ROUNDS if name in one["set"]):
        asked = request(held["contribute"][name])
        assert asked.parts == b"".join(mac(one, name) for one in others)
        assert asked.model == raw(held["model"])
    for step in ("bundle", "encapsulate"):
        assert not request(said[step][name]).parts


@each_round
def test_shares_and_masks_stand_in_the_order_of_the_countries(held: dict[str, Any]) -> None:
    chosen = tuple(held["set"])
    for name in chosen:
        sealed = [sealed_by(owner, held)[name] for owner in without(name, chosen)]
        asked = request(held["answer"][name])
        assert asked.parts == b"".join(sealed)
        answer = pb.RequestBody.FromString(asked.signed.body).answer
        assert list(answer.versions) == [TERMS.versions]
        at = ROSTER.index(name)
        shares = [raw(held["countries"][owner]["shares"][at]) for owner in chosen]
        outside = [Pair.of(name, one) for one in ROSTER if one not in chosen]
        masks = [raw(pair_held(pair, held["keys"])["mask_key"]) for pair in outside]
        said = pb.Answer(round=held["round"], shares=b"".join(shares), masks=b"".join(masks))
        assert reply(held["answer"][name]).answer.body == said.SerializeToString()


# ---- the sum -----------------------------------------------------------------------------


@each_round
def test_the_sum_opens(held: dict[str, Any]) -> None:
    assert opening_of(held, held["set"]).opened() == held["opened"]
    assert held["variance"] == len(held["set"]) * mechanism_of(held).integer("noise_std") ** 2


def test_three_answers_of_four_open_the_sum_of_the_roster() -> None:
    for chosen in combinations(ROSTER, 3):
        assert opening_of(ROUNDS[0], chosen).opened() == ROUNDS[0]["opened"]


@each_round
@each_change
def test_nothing_opens_with_what_is_not_as_it_was_signed(
    held: dict[str, Any], alter: Alter
) -> None:
    changed = contributions(held)
    alter(changed["CZ"])
    opening = replace(opening_of(held, held["set"]), contributions=changed)
    with pytest.raises(AssertionError):
        opening.opened()


@pytest.mark.parametrize("named", [["CZ"], []], ids=["named", "not named"])
def test_a_share_of_zeros_is_left_out(named: list[str]) -> None:
    opening = opening_of(ROUNDS[0], ROSTER)
    answers = dict(opening.answers)
    shares, at = answers["AT"].shares, 32 * ROSTER.index("CZ")
    zeros = shares[:at] + bytes(32) + shares[at + 32 :]
    answers["AT"] = pb.Answer(round=1, shares=zeros, unopenable=named)
    assert replace(opening, answers=answers).opened() == ROUNDS[0]["opened"]
    del answers["DK"]
    with pytest.raises(AssertionError):
        replace(opening, answers=answers).opened()
