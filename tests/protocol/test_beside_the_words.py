"""A coordinator changes the unsigned parts that travel beside the signed words of a request.

Every test uses real countries. The words are signed and the same for all countries. The liar can
vary only what others made for one country, and the versions that heads name by digest.
"""

import os
from collections.abc import Callable, Sequence

import pytest

from protocols.errors import ReasonCode
from protocols.private_sum.country_round import NOTHING
from protocols.private_sum.messages import MAC_BYTES, SEALED_BYTES, versions_digest
from protocols.proto.round_pb2 import Answer, ContributionHead, Reply, RequestBody, Signed
from protocols.proto.round_pb2 import DocumentVersions as Versions
from protocols.wire.document_versions import DocumentVersions
from protocols.wire.signed_message import serialise
from tests.support.lying_coordinator import WITHOUT_DK, WITHOUT_EE, five
from tests.support.protocol_world import (
    IDENTITIES,
    MODEL,
    ZEROS,
    ProtocolWorld,
    altered_request,
    parts_of,
    refused,
    state_of,
    with_body,
    with_head,
)

# ---- parts


def test_parts_for_another_country_do_not_open() -> None:
    """The words are the same for all: BE's request with AT's parts is a request for AT."""
    liar = five()
    round_ = liar.contributed()
    liar.agree_all(round_, WITHOUT_EE)
    run = liar.world.countries["AT"]
    reply = run.answer(liar.answer_request(round_, "BE", WITHOUT_EE))
    answer = Answer.FromString(Reply.FromString(reply).answer.body)
    assert list(answer.unopenable) == ["BE", "CZ", "DK"]
    liar.adversary_state.record(reply, WITHOUT_EE)
    assert liar.press(round_) == (("AT", "BE", "CZ", "DK"),)


# ---- versions beside the heads

NEWER = DocumentVersions(3, 4).to_proto()


@pytest.mark.parametrize(
    "shown_versions",
    [
        lambda versions: [],
        lambda versions: [NEWER],
        lambda versions: [*versions, NEWER],
        lambda versions: 2 * versions,
        lambda versions: [DocumentVersions(3, 3).to_proto()],
        lambda versions: [DocumentVersions(2, 3, dict(versions[0].countries)).to_proto()],
    ],
    ids=["none", "others", "one-more", "twice", "without-countries", "older"],
)
def test_versions_that_no_head_names_or_none_for_a_head_are_refused(
    shown_versions: Callable[[list[Versions]], list[Versions]],
) -> None:
    liar = five()
    round_ = liar.contributed()
    liar.agree_all(round_, WITHOUT_EE)
    run, honest = liar.world.countries["AT"], liar.answer_request(round_, "AT", WITHOUT_EE)

    def show(body: RequestBody) -> None:
        versions = list(body.answer.versions)
        assert len(versions) == 1
        put = shown_versions(versions)
        del body.answer.versions[:]
        body.answer.versions.extend(put)

    with refused(run, ReasonCode.MALFORMED):
        run.answer(altered_request(honest, show))
    assert liar.opens(round_) == ()
    assert liar.press(round_) == (("AT", "BE", "CZ", "DK"),)


def with_versions(digest: bytes) -> Callable[[Signed], Signed]:
    def change(head: Signed) -> Signed:
        content = ContributionHead.FromString(head.body)
        content.versions_digest = digest
        return with_body(head, serialise(content), IDENTITIES["EE"])

    return change


@pytest.mark.parametrize("digest", [b"", bytes(32), versions_digest(NEWER)], ids=len)
def test_a_head_whose_versions_are_not_shown_is_refused(digest: bytes) -> None:
    """EE's head names other versions than those in the request."""
    liar = five()
    round_ = liar.contributed()
    liar.agree_all(round_, WITHOUT_DK)
    request = liar.answer_request(round_, "AT", WITHOUT_DK)
    with refused(liar.world.countries["AT"], ReasonCode.MALFORMED):
        liar.world.countries["AT"].answer(with_head(request, 3, with_versions(digest)))
    assert liar.opens(round_) == ()


def test_a_head_with_newer_documents_stops_the_answer_and_names_its_sender() -> None:
    liar = five()
    round_ = liar.contributed()
    liar.agree_all(round_, WITHOUT_DK)
    request = liar.answer_request(round_, "AT", WITHOUT_DK)

    def show(body: RequestBody) -> None:
        body.answer.versions.append(NEWER)
        body.answer.versions.sort(key=versions_digest)

    behind = altered_request(with_head(request, 3, with_versions(versions_digest(NEWER))), show)
    with refused(liar.world.countries["AT"], ReasonCode.DOCUMENTS_BEHIND, naming="EE"):
        liar.world.countries["AT"].answer(behind)
    assert liar.opens(round_) == ()
    assert liar.press(round_) == (("AT", "BE", "CZ"),)


# ---- one request for all


def test_a_request_is_valid_for_the_country_whose_parts_it_has() -> None:
    """Words of one copy and parts of another give the same request as the coordinator made."""
    world = ProtocolWorld.ready(4, colluding=0, honest=2)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    for country, other in zip(world.terms.roster, world.terms.roster[::-1], strict=True):
        meant = round_.contribute_request(country)
        mixed = altered_request(round_.contribute_request(other), parts=parts_of(meant, MAC_BYTES))
        assert mixed == meant
        reply = world.countries[country].contribute(mixed, ZEROS, ZEROS)
        round_.take_contribution(country, reply)


Mixed = Callable[[Sequence[bytes]], Sequence[bytes]]


@pytest.mark.parametrize(
    ("mix", "lost"),
    [
        (lambda parts: [parts[0], parts[0], parts[2]], ["CZ"]),
        (lambda parts: [parts[1], parts[0], parts[2]], ["BE", "CZ"]),
        (lambda parts: [bytes(60), *parts[1:]], ["BE"]),
        (lambda parts: [parts[0][:59] + bytes([parts[0][59] ^ 1]), *parts[1:]], ["BE"]),
        (lambda parts: [bytes(60)] * 3, ["BE", "CZ", "DK"]),
    ],
    ids=["twice", "swapped", "zeros", "one bit", "all zeros"],
)
def test_a_country_reports_whose_parts_do_not_open_and_gives_the_others(
    mix: Mixed, lost: list[str]
) -> None:
    liar = five()
    round_ = liar.contributed()
    liar.agree_all(round_, WITHOUT_EE)
    run, stored = liar.world.countries["AT"], liar.world.countries["AT"].to_bytes()
    honest = liar.answer_request(round_, "AT", WITHOUT_EE)
    true = Answer.FromString(Reply.FromString(run.answer(honest)).answer.body)
    again = type(run).from_bytes(stored, run._view)
    mixed = altered_request(honest, parts=mix(parts_of(honest, SEALED_BYTES)))
    reply = again.answer(mixed)
    answer = Answer.FromString(Reply.FromString(reply).answer.body)
    assert list(answer.unopenable) == lost
    for index, owner in enumerate(WITHOUT_EE):
        share = true.shares[32 * index : 32 * index + 32]
        assert answer.shares[32 * index : 32 * index + 32] == (NOTHING if owner in lost else share)
    assert answer.masks == true.masks
    liar.adversary_state.record(reply, WITHOUT_EE)
    assert liar.opens(round_) == ()


def test_parts_of_another_run_are_refused() -> None:
    past = ProtocolWorld.ready(5, colluding=1, honest=2, run_id=bytes(16))
    liar = five()
    old = past.coordinator.begin_round(1, "train", MODEL)
    round_ = liar.begin()
    macs = parts_of(old.contribute_request("AT"), MAC_BYTES)
    with refused(liar.world.countries["AT"], ReasonCode.NOT_AUTHENTIC, naming="BE"):
        request = altered_request(round_.contribute_request("AT"), parts=macs)
        liar.world.countries["AT"].contribute(request, ZEROS, ZEROS)
    assert liar.adversary_state.contributors() == set()
    assert state_of(liar.world.countries["AT"]).open_round is None


def test_random_parts_are_refused() -> None:
    liar = five()
    round_ = liar.begin()
    macs = [os.urandom(MAC_BYTES) for _ in range(4)]
    with refused(liar.world.countries["AT"], ReasonCode.NOT_AUTHENTIC, naming="BE"):
        request = altered_request(round_.contribute_request("AT"), parts=macs)
        liar.world.countries["AT"].contribute(request, ZEROS, ZEROS)
