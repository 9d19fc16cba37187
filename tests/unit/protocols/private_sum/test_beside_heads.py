"""Data beside a contribution's head: words, sealed shares, commitments and versions."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from protocols.errors import ProtocolFault, ReasonCode, Refusal
from protocols.private_sum.contribution import MAX_HEAD_BYTES, commitments_digest
from protocols.private_sum.messages import versions_digest
from protocols.proto.round_pb2 import ContributionHead, Reply, RequestBody
from protocols.proto.round_pb2 import Request as Envelope
from protocols.wire.signed_message import serialise
from tests.support.protocol_world import (
    IDENTITIES,
    MODEL,
    ZEROS,
    ProtocolWorld,
    parts_of,
    versions_of,
    with_body,
)

Change = Callable[[Reply, ContributionHead], object]


def resized(field: str, size: int) -> Change:
    """Return a change of a field beside the head, and of its digest in the head."""

    def change(reply: Reply, head: ContributionHead) -> None:
        given = getattr(reply.contribution, field)
        given = given[:size] + bytes(max(0, size - len(given)))
        setattr(reply.contribution, field, given)
        if field == "commitments":
            head.commitments_digest = commitments_digest(
                reply.contribution.head.context, "AT", given
            )

    return change


def with_too_many_countries(reply: Reply, head: ContributionHead) -> None:
    """Claim versions of more countries than allowed, and sign their digest."""
    for number in range(MAX_HEAD_BYTES // 8):
        reply.contribution.versions.countries[f"C{number}"] = 1
    head.versions_digest = versions_digest(reply.contribution.versions)


def other_versions(reply: Reply, head: ContributionHead) -> None:
    reply.contribution.versions.countries["BE"] += 1


def no_versions(reply: Reply, head: ContributionHead) -> None:
    reply.contribution.ClearField("versions")


def other_versions_digest(reply: Reply, head: ContributionHead) -> None:
    head.versions_digest = bytes(32)


def unknown_fields(reply: Reply, head: ContributionHead) -> None:
    """Add an unknown field to the versions, and sign its digest too."""
    reply.contribution.versions.MergeFromString(bytes([0xFA, 0x07, 2, 1, 1]))  # field 127
    head.versions_digest = versions_digest(reply.contribution.versions)


def other_round(reply: Reply, head: ContributionHead) -> None:
    head.round += 1


def other_commitments(reply: Reply, head: ContributionHead) -> None:
    reply.contribution.commitments = bytes(3 * 32)


@pytest.mark.parametrize(
    ("change", "naming"),
    [
        (resized("shares", 0), "share its seed"),
        (resized("shares", 60), "share its seed"),
        (resized("shares", 119), "share its seed"),
        (resized("shares", 121), "share its seed"),
        (resized("shares", 180), "share its seed"),
        (resized("commitments", 0), "share its seed"),
        (resized("commitments", 64), "share its seed"),
        (resized("commitments", 97), "share its seed"),
        (resized("commitments", 128), "share its seed"),
        (other_commitments, "commitments of AT are not those"),
        (other_versions, "versions of AT are not those"),
        (no_versions, "versions of AT are not those"),
        (other_versions_digest, "versions of AT are not those"),
        (with_too_many_countries, "too many countries"),
        (unknown_fields, "versions of AT are not those"),
        (other_round, "AT signed another round"),
    ],
    ids=[
        *("no shares", "one share", "cut shares", "longer shares", "more shares"),
        *("no commitments", "fewer commitments", "longer commitments", "more commitments"),
        *("other commitments", "other versions", "no versions", "other digest", "many versions"),
        *("unknown fields", "other round"),
    ],
)
def test_data_beside_a_head_is_complete_and_matches_its_signed_digests(
    change: Change, naming: str
) -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    honest = world.countries["AT"].contribute(round_.contribute_request("AT"), ZEROS, ZEROS)
    reply = Reply.FromString(honest)
    signed = reply.contribution.head
    head = ContributionHead.FromString(signed.body)
    change(reply, head)
    signed.CopyFrom(with_body(signed, serialise(head), IDENTITIES["AT"]))
    with pytest.raises(ProtocolFault, match="AT") as fault:
        round_.take_contribution("AT", serialise(reply))
    assert naming in str(fault.value)
    assert round_.contributed == ()
    assert not round_._sum.any()
    round_.take_contribution("AT", honest)


def test_each_holder_gets_the_share_that_each_owner_sealed_for_it() -> None:
    """Shares of every country of U, in their order, for U = roster and for a smaller set."""
    world = ProtocolWorld.ready(5, colluding=1, honest=2)
    for number, present in ((1, world.terms.roster), (2, ("AT", "BE", "DK", "EE"))):
        round_ = world.coordinator.begin_round(number, "train", MODEL)
        for country in present:
            world.contribute(round_, country)
        for country in round_.close():
            if round_.smaller:
                world.agree(round_, country)
        for holder in present:
            owners = [country for country in present if country != holder]
            sealed = parts_of(round_.answer_request(holder), 60)
            for owner, part in zip(owners, sealed, strict=True):
                others = [country for country in world.terms.roster if country != owner]
                start = 60 * others.index(holder)
                assert part == round_._sealed[owner][start : start + 60]


def test_equal_versions_are_shown_once() -> None:
    world = ProtocolWorld.ready(4)
    view = world.countries["DK"]._view
    ahead = replace(view, versions=versions_of(world.terms.roster, DK=4))
    stored = world.countries["DK"].to_bytes()
    world.countries["DK"] = type(world.countries["DK"]).from_bytes(stored, ahead)
    published = ahead.versions
    world.coordinator._view = replace(world.coordinator._view, published=lambda: published)
    round_ = world.contributed()
    body = RequestBody.FromString(Envelope.FromString(round_.answer_request("AT")).signed.body)
    digests = {versions_digest(versions) for versions in body.answer.versions}
    named = [
        ContributionHead.FromString(signed.body).versions_digest for signed in body.answer.heads
    ]
    assert (len(body.answer.versions), len(digests), len(named)) == (2, 2, 4)
    assert digests == set(named)
    with pytest.raises(Refusal, match="DK") as refusal:
        world.countries["AT"].answer(round_.answer_request("AT"))
    assert refusal.value.code is ReasonCode.DOCUMENTS_BEHIND
