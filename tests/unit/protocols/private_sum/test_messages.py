from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.derive import labelled_hash
from protocols.errors import ReasonCode, Refusal
from protocols.private_sum import messages
from protocols.private_sum.context import LARGEST_ROUND
from protocols.private_sum.messages import (
    MAC_BYTES,
    open_all,
    read_reply,
    read_request,
    refusal_reply,
    require_current,
    split_parts,
    versions_digest,
)
from protocols.proto.round_pb2 import (
    PHASE_AGREE,
    PHASE_BUNDLE,
    PHASE_CONTRIBUTE,
    PHASE_ENCAPSULATE,
    Reply,
)
from protocols.proto.round_pb2 import DocumentVersions as Versions
from protocols.wire.document_versions import LARGEST_ROSTER, DocumentVersions
from protocols.wire.signed_message import ROSTER, serialise, sign_message
from tests.support.protocol_world import (
    AGREEMENT,
    IDENTITIES,
    MODEL,
    NAMES,
    RUN_ID,
    STUDY,
    ProtocolWorld,
    altered_request,
    coordinator_of,
    terms_of,
    versions_of,
    view_of,
)

CONTEXT = b"c" * 32


def code_of(call: object, *arguments: object) -> ReasonCode:
    with pytest.raises(Refusal) as refusal:
        call(*arguments)  # type: ignore[operator]
    return refusal.value.code


def test_the_claims_of_a_request_can_be_read_before_verification() -> None:
    request = read_request(coordinator_of(terms_of(3)).bundle_request("AT"))
    assert request.phase == PHASE_BUNDLE
    assert (request.agreement, request.study, request.run_id) == (AGREEMENT, STUDY, RUN_ID)
    assert request.roster == ("AT", "BE", "CZ")
    assert request.versions == versions_of(("AT", "BE", "CZ"))
    assert (request.round_number, request.phase_kind, request.model) == (0, "", b"")


def test_a_round_request_claims_number_kind_and_model() -> None:
    world = ProtocolWorld.ready(3)
    round_ = world.contributed(2)
    parsed = read_request(round_.contribute_request("AT"))
    assert (parsed.phase, parsed.round_number, parsed.phase_kind) == (PHASE_CONTRIBUTE, 2, "train")
    assert (parsed.model, parsed.roster) == (MODEL, ())
    assert read_request(round_.answer_request("AT")).round_number == 2


def test_a_repeated_request_has_the_same_digest_and_another_one_has_not() -> None:
    coordinator = coordinator_of(terms_of(3))
    once, again = (read_request(coordinator.bundle_request("AT")) for _ in range(2))
    assert once.digest == again.digest
    assert read_request(coordinator.bundle_request("BE")).digest == once.digest
    other = coordinator_of(terms_of(3, run_id=bytes(16)))
    assert read_request(other.bundle_request("AT")).digest != once.digest
    round_ = ProtocolWorld.ready(3).coordinator.begin_round(1, "train", MODEL)
    parsed = {
        read_request(round_.contribute_request(country)).digest for country in ("AT", "BE", "CZ")
    }
    assert len(parsed) == 3, "the parts for one country differ"


@pytest.mark.parametrize("number", [LARGEST_ROUND + 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("phase", ["contribute", "agree", "answer"])
def test_a_round_number_beyond_the_largest_is_malformed(phase: str, number: int) -> None:
    world = ProtocolWorld.ready(4, colluding=0, honest=2)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    for country in ("AT", "BE", "CZ"):
        world.contribute(round_, country)
    for country in round_.close():
        world.agree(round_, country)
    request = getattr(round_, f"{phase}_request")("AT")
    beyond = altered_request(request, lambda body: setattr(getattr(body, phase), "round", number))
    assert read_request(request).round_number == 1
    assert code_of(read_request, beyond) is ReasonCode.MALFORMED


@pytest.mark.parametrize("cut", [1, 40, 100])
def test_a_truncated_request_is_malformed(cut: int) -> None:
    request = coordinator_of(terms_of(3)).bundle_request("AT")
    assert code_of(read_request, request[:-cut]) is ReasonCode.MALFORMED


def test_an_oversized_request_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    request = coordinator_of(terms_of(3)).bundle_request("AT")
    monkeypatch.setattr(messages, "LARGEST_REQUEST", len(request) - 1)
    assert code_of(read_request, request) is ReasonCode.MALFORMED


@pytest.mark.parametrize("data", [b"", b"\xff\xff", bytes(100)])
def test_other_bytes_are_malformed(data: bytes) -> None:
    assert code_of(read_request, data) is ReasonCode.MALFORMED


def test_phase_and_content_must_agree() -> None:
    request = coordinator_of(terms_of(3)).bundle_request("AT")
    for phase in (0, PHASE_CONTRIBUTE, PHASE_AGREE, 77):
        assert code_of(read_request, altered_request(request, phase=phase)) is ReasonCode.MALFORMED


def test_only_a_contribute_request_has_a_model() -> None:
    request = altered_request(coordinator_of(terms_of(3)).bundle_request("AT"), model=b"weights")
    assert code_of(read_request, request) is ReasonCode.MALFORMED


@pytest.mark.parametrize("step", ["bundle", "encapsulate", "agree"])
def test_only_requests_with_data_for_each_country_have_parts(step: str) -> None:
    world = ProtocolWorld.of(3)
    request = world.coordinator.bundle_request("AT")
    change = {
        "bundle": lambda body: None,
        "encapsulate": lambda body: body.encapsulate.SetInParent(),
        "agree": lambda body: body.agree.SetInParent(),
    }[step]
    phase = {
        "bundle": PHASE_BUNDLE,
        "encapsulate": PHASE_ENCAPSULATE,
        "agree": PHASE_AGREE,
    }[step]
    read_request(altered_request(request, change, phase=phase))
    altered = altered_request(request, change, parts=[b"1"], phase=phase)
    assert code_of(read_request, altered) is ReasonCode.MALFORMED


def test_parts_and_model_are_covered_by_the_digest_of_a_request() -> None:
    """Otherwise a journal could answer a request with other parts or another model from memory."""
    request = (
        ProtocolWorld.ready(3).coordinator.begin_round(1, "train", MODEL).contribute_request("AT")
    )
    honest = read_request(request)
    assert (len(honest.parts), honest.model) == (2 * MAC_BYTES, MODEL)
    others = [
        altered_request(request, parts=[]),
        altered_request(request, parts=[honest.parts[:-1] + b"0"]),
        altered_request(request, model=b"another model"),
        altered_request(request, model=honest.parts + MODEL, parts=[]),
        altered_request(request, model=b"", parts=[honest.parts + MODEL]),
        altered_request(request, receiver="AT"),
    ]
    digests = {read_request(country).digest for country in others}
    assert len(digests) == len(others)
    assert honest.digest not in digests
    assert read_request(altered_request(request, key=IDENTITIES["AT"])).digest == honest.digest


def test_versions_of_too_many_countries_are_refused() -> None:
    request = coordinator_of(terms_of(3)).bundle_request("AT")
    many = DocumentVersions(1, 1, {f"C{number}": 1 for number in range(LARGEST_ROSTER + 1)})
    altered = altered_request(request, lambda body: body.versions.CopyFrom(many.to_proto()))
    assert code_of(read_request, altered) is ReasonCode.MALFORMED


def test_authentication_uses_the_values_that_the_country_itself_has() -> None:
    terms = terms_of(3)
    request = read_request(coordinator_of(terms).bundle_request("AT"))
    key = view_of("AT", terms).coordinator
    binding: dict[str, Any] = {"phase": PHASE_BUNDLE, "context": terms.context}
    request.authenticate(key, **binding)
    for change in ({"context": CONTEXT}, {"phase": PHASE_CONTRIBUTE}):
        with pytest.raises(Refusal):
            request.authenticate(key, **{**binding, **change})
    with pytest.raises(Refusal):
        request.authenticate(IDENTITIES["AT"].public, **binding)
    honest = coordinator_of(terms).bundle_request("AT")
    for receiver in ("AT", "BE", "coordinator", ""):
        altered = read_request(altered_request(honest, receiver=receiver))
        assert code_of(partial(altered.authenticate, key, **binding)) is ReasonCode.STALE


@pytest.mark.parametrize("code", list(ReasonCode))
def test_a_refusal_has_its_code_and_nothing_else(code: ReasonCode) -> None:
    reply = refusal_reply(code)
    assert len(reply) <= len(code.value) + 4
    with pytest.raises(Refusal, match="AT refused") as refusal:
        read_reply(reply, "AT", "bundle")
    assert refusal.value.code is code


def test_an_unknown_code_is_not_trusted() -> None:
    reply = Reply()
    reply.refused.code = "\x1b[31mpatient 7\n" * 100
    with pytest.raises(Refusal) as refusal:
        read_reply(serialise(reply), "AT", "bundle")
    assert refusal.value.code is ReasonCode.MALFORMED
    assert "\x1b" not in str(refusal.value)
    assert len(str(refusal.value)) < 200


def test_a_reply_to_another_question_is_malformed() -> None:
    reply = serialise(Reply(bundle={"sender": "AT"}))
    assert read_reply(reply, "AT", "bundle").bundle.sender == "AT"
    assert code_of(read_reply, reply, "AT", "answer") is ReasonCode.MALFORMED
    assert code_of(read_reply, b"", "AT", "bundle") is ReasonCode.MALFORMED


def test_there_is_one_message_of_each_country_in_order() -> None:
    names = ("AT", "BE", "CZ")
    peers = {name: IDENTITIES[name].public for name in names}
    signed = [
        sign_message(
            IDENTITIES[name].sign,
            phase=PHASE_BUNDLE,
            context=CONTEXT,
            sender=name,
            receiver=ROSTER,
            body=name.encode(),
        )
        for name in names
    ]
    assert open_all(signed, peers, PHASE_BUNDLE, CONTEXT) == {n: n.encode() for n in names}
    for wrong in (
        signed[:2],
        signed[::-1],
        [*signed, signed[0]],
        [signed[0], signed[0], signed[2]],
        [],
    ):
        assert code_of(open_all, wrong, peers, PHASE_BUNDLE, CONTEXT) is ReasonCode.ROSTER


def test_there_is_one_part_for_each_country_in_order() -> None:
    assert split_parts(b"112233", ("AT", "BE", "CZ"), 2) == {"AT": b"11", "BE": b"22", "CZ": b"33"}
    assert split_parts(b"", (), 32) == {}
    for data, countries in (
        (b"1122", ("AT", "BE", "CZ")),
        (b"11223344", ("AT", "BE", "CZ")),
        (b"11223", ("AT", "BE", "CZ")),
        (b"1122334", ("AT", "BE", "CZ")),
        (b"", ("AT",)),
        (b"11", ()),
    ):
        assert code_of(split_parts, data, countries, 2) is ReasonCode.ROSTER


@given(st.integers(0, 300), st.integers(0, 6), st.integers(1, 70))
def test_missing_or_additional_parts_are_refused(length: int, number: int, size: int) -> None:
    data, countries = bytes(index % 251 for index in range(length)), NAMES[:number]
    if length != number * size:
        assert code_of(split_parts, data, countries, size) is ReasonCode.ROSTER
        return
    given = split_parts(data, countries, size)
    assert (tuple(given), b"".join(given.values())) == (countries, data)
    assert {len(part) for part in given.values()} <= {size}


# ---- versions


def test_a_versions_digest_depends_on_the_values_only() -> None:
    one = DocumentVersions(3, 4, {"AT": 5, "BE": 6}).to_proto()
    other = DocumentVersions(3, 4, {"BE": 6, "AT": 5}).to_proto()
    assert versions_digest(one) == versions_digest(Versions.FromString(serialise(other)))
    assert versions_digest(one) == labelled_hash("pratique/versions/v1", serialise(one))
    assert len(versions_digest(one)) == 32


def test_versions_that_differ_anywhere_have_different_digests() -> None:
    versions = [
        DocumentVersions(3, 4, {"AT": 5, "BE": 6}),
        DocumentVersions(4, 4, {"AT": 5, "BE": 6}),
        DocumentVersions(3, 3, {"AT": 5, "BE": 6}),
        DocumentVersions(4, 3, {"AT": 5, "BE": 6}),
        DocumentVersions(3, 4, {"AT": 6, "BE": 5}),
        DocumentVersions(3, 4, {"AT": 5, "CZ": 6}),
        DocumentVersions(3, 4, {"AT": 5}),
        DocumentVersions(3, 4),
        DocumentVersions(0, 0),
    ]
    assert len({versions_digest(value.to_proto()) for value in versions}) == len(versions)


def test_a_country_that_is_behind_learns_which_documents_are_newer() -> None:
    versions = versions_of(("AT", "BE"))
    require_current(versions, versions, "BE")
    with pytest.raises(Refusal, match="country-BE") as refusal:
        require_current(versions, versions_of(("AT", "BE"), BE=4), "BE")
    assert refusal.value.code is ReasonCode.DOCUMENTS_BEHIND
