"""A country that claims unpublished documents is left out itself, and stops no round."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from governance.trust import signing
from protocols.private_sum.coordinator_view import Unpublished
from protocols.private_sum.messages import versions_digest
from protocols.proto.round_pb2 import Bundle, ContributionHead, DocumentVersions, Reply
from protocols.wire.signed_message import serialise
from server.runs.rounds import CATCHING_UP, RoundDriver, SetUpFailed
from tests.support.coordinator_services import NodesCarrier
from tests.support.direct_carrier import DrivenRun
from tests.support.node_federation import NodeFederation, Run
from tests.support.protocol_world import (
    IDENTITIES,
    MODEL,
    ZEROS,
    ProtocolWorld,
    versions_of,
    with_body,
)

LIAR = "EE"
CLAIMS = {
    "root": lambda versions: setattr(versions, "root", versions.root + 1),
    "targets": lambda versions: setattr(versions, "targets", versions.targets + 1),
    "another's": lambda versions: versions.countries.update({"DK": versions.countries["DK"] + 1}),
    "its own": lambda versions: versions.countries.update({LIAR: versions.countries[LIAR] + 1}),
    "a stranger's": lambda versions: versions.countries.update({"ZZ": 1}),
}
Claim = Callable[[DocumentVersions], object]


def claiming(reply: bytes, country: str, claim: Claim) -> bytes:
    """Return a country's contribution with other document versions, signed by that country."""
    reply_message = Reply.FromString(reply)
    head = ContributionHead.FromString(reply_message.contribution.head.body)
    claim(reply_message.contribution.versions)
    head.versions_digest = versions_digest(reply_message.contribution.versions)
    signed = with_body(reply_message.contribution.head, serialise(head), IDENTITIES[country])
    reply_message.contribution.head.CopyFrom(signed)
    return serialise(reply_message)


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS.keys())
def test_a_country_that_claims_an_unpublished_document_is_left_out_and_named(
    claim: Claim,
) -> None:
    run = DrivenRun(ProtocolWorld.ready(5, colluding=1, honest=2))
    waited: list[float] = []
    run.driver._sleep = waited.append
    for number in (1, 2):
        claiming_replies = [lambda frame: claiming(run.carrier.honest(LIAR, frame), LIAR, claim)]
        run.carrier.misbehave(LIAR, "contribute", *claiming_replies * (1 + len(CATCHING_UP)))
        report = run.driver.sum(number, "train", MODEL)
        run.require(report, ("AT", "BE", "CZ", "DK"))
        assert report.causes == {LIAR: f"{LIAR} has documents that are not published"}
    assert tuple(waited) == CATCHING_UP, "in the second round it is asked once"


def test_the_coordinator_waits_for_a_document_that_is_published_later() -> None:
    """An officer gives a document to its own node first, and then to the exchange."""
    world = ProtocolWorld.ready(4)
    published = [versions_of(world.terms.roster)]
    world.coordinator._view = replace(world.coordinator._view, published=lambda: published[-1])
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    reply = world.countries["DK"].contribute(round_.contribute_request("DK"), ZEROS, ZEROS)
    ahead = claiming(reply, "DK", lambda versions: versions.countries.update({"DK": 4}))
    with pytest.raises(Unpublished, match=r"DK has documents .* country-DK"):
        round_.take_contribution("DK", ahead)
    assert not round_.contributed
    published.append(versions_of(world.terms.roster, DK=4))
    round_.take_contribution("DK", ahead)
    assert round_.contributed == ("DK",)


def test_only_the_country_that_claims_one_in_set_up_is_named() -> None:
    run = DrivenRun(ProtocolWorld.of(4))

    def claiming_bundle(frame: bytes) -> bytes:
        reply_message = Reply.FromString(run.carrier.honest("BE", frame))
        bundle = Bundle.FromString(reply_message.bundle.body)
        bundle.versions.countries["DK"] += 1
        reply_message.bundle.CopyFrom(
            with_body(reply_message.bundle, serialise(bundle), IDENTITIES["BE"])
        )
        return serialise(reply_message)

    run.carrier.misbehave("BE", "bundle", *[claiming_bundle] * (1 + len(CATCHING_UP)))
    with pytest.raises(SetUpFailed) as failed:
        run.driver.set_up()
    assert failed.value.causes == {"BE": "BE has documents that are not published"}


# ---- documents that expire ----------


def publish_for_a_minute(federation: NodeFederation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let PT publish documents that expire soon; every node fetches them."""
    with monkeypatch.context() as patch:
        patch.setattr(signing, "COUNTRY_LIFE", timedelta(minutes=1))
        federation.hand_over("PT")
    federation.sync()


def test_countries_with_documents_that_expired_meanwhile_are_not_left_out(
    federation: NodeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = federation.ready(federation.approved())
    publish_for_a_minute(federation, monkeypatch)
    round_ = run.coordinator.begin_round(1, "histogram", b"")
    honest = ("DK", "EE", "NO")
    replies = {c: federation.nodes[c].handle(round_.contribute_request(c)) for c in honest}
    federation.documents.now += timedelta(minutes=2)
    for country, reply in replies.items():
        round_.take_contribution(country, reply)
    assert round_.contributed == honest


def test_a_set_up_is_resumed_after_a_document_has_expired(
    federation: NodeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, run_id = federation.approved("PT", countries=["DK", "EE", "NO"]), b"7" * 16
    run = federation.run(study, run_id)
    ground = run.coordinator._view.versions
    publish_for_a_minute(federation, monkeypatch)
    replies = driver(run, federation).set_up()
    federation.documents.now += timedelta(minutes=2)
    again = federation.run(study, run_id, versions=ground)
    driver(again, federation).resume(replies)
    again.coordinator.begin_round(1, "histogram", b"")


def driver(run: Run, federation: NodeFederation) -> RoundDriver:
    return RoundDriver(
        run.coordinator,
        run.terms.roster,
        NodesCarrier(federation),
        seconds=9.0,
        keep_closed=lambda *_: None,
        sleep=lambda _: None,
    )
