"""The messages that hold the known answers, and the coordinator's steps as the page states them."""

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
    raw,
    recorded_pair,
    reply,
    request,
    sealed_by,
)
from tests.vectors.seat import Alter, each_change

# ---- signed words ------------------------------------------------------------------------


def steps() -> Iterator[dict[str, dict[str, str]]]:
    """Yield requests and replies by country, of every step."""
    yield from SET_UP["said"].values()
    for recorded in ROUNDS:
        yield from (recorded[step] for step in ("contribute", "agree", "answer") if recorded[step])


def messages() -> Iterator[pb.Signed]:
    """Yield every signed message of the run, including those inside other messages."""
    for exchange in (recorded for step in steps() for recorded in step.values()):
        signed_request, replied = request(exchange).signed, reply(exchange)
        body = pb.RequestBody.FromString(signed_request.body)
        yield from (signed_request, *body.encapsulate.bundles, *body.confirm.encapsulations)
        yield from (*body.answer.heads, *body.answer.assents)
        yield signed_part(replied)


def signed_part(given: pb.Reply) -> pb.Signed:
    """Return the signed part of a reply."""
    beside = {"encapsulation": given.encapsulation.signed, "contribution": given.contribution.head}
    content = str(given.WhichOneof("content"))
    return beside[content] if content in beside else getattr(given, content)


def test_every_signature_verifies_with_its_binding_only() -> None:
    count = 0
    for message in messages():
        binding = message.context, message.phase, message.sender, message.receiver, message.body
        assert verified(TERMS.keys[message.sender], message.signature, bind(*binding))
        other_binding = message.context, message.phase + 1, *binding[2:]
        assert not verified(TERMS.keys[message.sender], message.signature, bind(*other_binding))
        count += 1
    assert count > 100


def test_every_country_is_asked_the_same_words() -> None:
    for exchange in steps():
        first, *others = [request(recorded).signed for recorded in exchange.values()]
        assert (first.sender, first.receiver) == ("coordinator", "roster")
        assert all(other == first for other in others)


# ---- joined parts ------------------------------------------------------------------------


def pair_of(a: str, b: str) -> dict[str, str]:
    return recorded_pair(Pair.of(a, b), SET_UP["pairs"])


def mac(sender: str, receiver: str) -> bytes:
    return raw(pair_of(sender, receiver)["mac_of_lower" if sender < receiver else "mac_of_higher"])


def without(name: str, countries: tuple[str, ...] = ROSTER) -> list[str]:
    return [country for country in countries if country != name]


@each_country
def test_ciphertexts_and_macs_are_in_the_order_of_the_countries(name: str) -> None:
    exchanges, others = SET_UP["said"], without(name)
    sent = b"".join(
        raw(pair_of(name, country)["ciphertext"]) for country in others if country > name
    )
    assert reply(exchanges["encapsulate"][name]).encapsulation.ciphertexts == sent
    got = b"".join(
        raw(pair_of(country, name)["ciphertext"]) for country in others if country < name
    )
    assert request(exchanges["confirm"][name]).parts == got
    body = pb.Confirmations(macs=b"".join(mac(name, country) for country in others))
    assert reply(exchanges["confirm"][name]).confirmation.body == body.SerializeToString()
    for recorded in (entry for entry in ROUNDS if name in entry["set"]):
        request_message = request(recorded["contribute"][name])
        assert request_message.parts == b"".join(mac(country, name) for country in others)
        assert request_message.model == raw(recorded["model"])
    for step in ("bundle", "encapsulate"):
        assert not request(exchanges[step][name]).parts


@each_round
def test_shares_and_masks_are_in_the_order_of_the_countries(recorded: dict[str, Any]) -> None:
    chosen = tuple(recorded["set"])
    for name in chosen:
        sealed = [sealed_by(owner, recorded)[name] for owner in without(name, chosen)]
        request_message = request(recorded["answer"][name])
        assert request_message.parts == b"".join(sealed)
        position = 32 * ROSTER.index(name)
        committed = [
            raw(recorded["countries"][owner]["commitments"])[position : position + 32]
            for owner in without(name, chosen)
        ]
        assert request_message.commitments == b"".join(committed)
        answer = pb.RequestBody.FromString(request_message.signed.body).answer
        assert list(answer.versions) == [TERMS.versions]
        at = ROSTER.index(name)
        shares = [raw(recorded["countries"][owner]["shares"][at]) for owner in chosen]
        outside = [Pair.of(name, country) for country in ROSTER if country not in chosen]
        masks = [raw(recorded_pair(pair, recorded["keys"])["mask_key"]) for pair in outside]
        body = pb.Answer(round=recorded["round"], shares=b"".join(shares), masks=b"".join(masks))
        body.compared = True
        assert reply(recorded["answer"][name]).answer.body == body.SerializeToString()


# ---- the sum -----------------------------------------------------------------------------


@each_round
def test_the_sum_opens(recorded: dict[str, Any]) -> None:
    assert opening_of(recorded, recorded["set"]).opened() == recorded["opened"]
    assert (
        recorded["variance"]
        == len(recorded["set"]) * mechanism_of(recorded).integer("noise_std") ** 2
    )


def test_three_answers_of_four_open_the_sum_of_the_roster() -> None:
    for chosen in combinations(ROSTER, 3):
        assert opening_of(ROUNDS[0], chosen).opened() == ROUNDS[0]["opened"]


@each_round
@each_change
def test_no_sum_opens_with_a_reply_that_differs_from_what_was_signed(
    recorded: dict[str, Any], alter: Alter
) -> None:
    changed = contributions(recorded)
    alter(changed["CZ"])
    opening = replace(opening_of(recorded, recorded["set"]), contributions=changed)
    with pytest.raises(AssertionError):
        opening.opened()


@pytest.mark.parametrize("named", [["CZ"], []], ids=["named", "not named"])
def test_a_share_of_zeros_is_ignored(named: list[str]) -> None:
    opening = opening_of(ROUNDS[0], ROSTER)
    answers = dict(opening.answers)
    shares, at = answers["AT"].shares, 32 * ROSTER.index("CZ")
    zeros = shares[:at] + bytes(32) + shares[at + 32 :]
    answers["AT"] = pb.Answer(round=1, shares=zeros, unopenable=named)
    assert replace(opening, answers=answers).opened() == ROUNDS[0]["opened"]
    del answers["DK"]
    with pytest.raises(AssertionError):
        replace(opening, answers=answers).opened()
