import pytest

from protocols.errors import ReasonCode, Refusal
from protocols.private_sum import messages
from protocols.private_sum.context import LARGEST_ROSTER, DocumentVersions
from protocols.private_sum.messages import (
    open_all,
    parcels,
    read_reply,
    read_request,
    refusal_reply,
    require_current,
    unpack_parcels,
)
from protocols.proto.round_pb2 import PHASE_AGREE, PHASE_BUNDLE, PHASE_CONTRIBUTE, Reply
from protocols.signed import ROSTER, serialise, sign_message
from tests.support.federation import (
    AGREEMENT,
    IDENTITIES,
    MODEL,
    RUN_ID,
    STUDY,
    World,
    coordinator_of,
    retold,
    terms_of,
    versions_of,
    view_of,
)

CONTEXT = b"c" * 32


def code_of(call: object, *arguments: object) -> ReasonCode:
    with pytest.raises(Refusal) as refusal:
        call(*arguments)  # type: ignore[operator]
    return refusal.value.code


def test_a_request_shows_its_claims_before_anybody_believes_them() -> None:
    request = read_request(coordinator_of(terms_of(3)).bundle_request("AT"))
    assert request.phase == PHASE_BUNDLE
    assert (request.agreement, request.study, request.run_id) == (AGREEMENT, STUDY, RUN_ID)
    assert request.roster == ("AT", "BE", "CZ")
    assert request.versions == versions_of(("AT", "BE", "CZ"))
    assert (request.round_number, request.phase_kind, request.model) == (0, "", b"")


def test_a_round_request_claims_number_kind_and_model() -> None:
    world = World.ready(3)
    opened = world.contributed(2)
    asked = read_request(opened.contribute_request("AT"))
    assert (asked.phase, asked.round_number, asked.phase_kind) == (PHASE_CONTRIBUTE, 2, "train")
    assert (asked.model, asked.roster) == (MODEL, ())
    assert read_request(opened.answer_request("AT")).round_number == 2


def test_a_repeated_request_has_the_same_digest_and_another_one_has_not() -> None:
    coordinator = coordinator_of(terms_of(3))
    once, again = (read_request(coordinator.bundle_request("AT")) for _ in range(2))
    assert once.digest == again.digest
    assert read_request(coordinator.bundle_request("BE")).digest != once.digest


@pytest.mark.parametrize("cut", [1, 40, 100])
def test_a_truncated_request_is_malformed(cut: int) -> None:
    request = coordinator_of(terms_of(3)).bundle_request("AT")
    assert code_of(read_request, request[:-cut]) is ReasonCode.MALFORMED


def test_an_oversized_request_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    request = coordinator_of(terms_of(3)).bundle_request("AT")
    monkeypatch.setattr(messages, "LARGEST_REQUEST", len(request) - 1)
    assert code_of(read_request, request) is ReasonCode.MALFORMED


@pytest.mark.parametrize("data", [b"", b"\xff\xff", bytes(100)])
def test_what_is_no_request_is_malformed(data: bytes) -> None:
    assert code_of(read_request, data) is ReasonCode.MALFORMED


def test_phase_and_content_belong_together() -> None:
    request = coordinator_of(terms_of(3)).bundle_request("AT")
    for phase in (0, PHASE_CONTRIBUTE, PHASE_AGREE, 77):
        assert code_of(read_request, retold(request, phase=phase)) is ReasonCode.MALFORMED


def test_a_model_travels_with_a_contribute_request_only() -> None:
    request = retold(coordinator_of(terms_of(3)).bundle_request("AT"), model=b"weights")
    assert code_of(read_request, request) is ReasonCode.MALFORMED


def test_versions_of_too_many_countries_are_not_taken() -> None:
    request = coordinator_of(terms_of(3)).bundle_request("AT")
    many = DocumentVersions(1, 1, {f"C{number}": 1 for number in range(LARGEST_ROSTER + 1)})
    told = retold(request, lambda body: body.versions.CopyFrom(many.to_proto()))
    assert code_of(read_request, told) is ReasonCode.MALFORMED


def test_authentication_is_against_the_countrys_own_values() -> None:
    terms = terms_of(3)
    request = read_request(coordinator_of(terms).bundle_request("AT"))
    key = view_of("AT", terms).coordinator
    place = {"phase": PHASE_BUNDLE, "context": terms.context, "country": "AT"}
    request.authenticate(key, **place)  # type: ignore[arg-type]
    for change in ({"country": "BE"}, {"context": CONTEXT}, {"phase": PHASE_CONTRIBUTE}):
        with pytest.raises(Refusal):
            request.authenticate(key, **{**place, **change})  # type: ignore[arg-type]
    with pytest.raises(Refusal):
        request.authenticate(IDENTITIES["AT"].public, **place)  # type: ignore[arg-type]


@pytest.mark.parametrize("code", list(ReasonCode))
def test_a_refusal_carries_its_code_and_nothing_else(code: ReasonCode) -> None:
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
    reply = serialise(Reply(bundle={"sender": "AT"}))  # type: ignore[arg-type]
    assert read_reply(reply, "AT", "bundle").bundle.sender == "AT"
    assert code_of(read_reply, reply, "AT", "answer") is ReasonCode.MALFORMED
    assert code_of(read_reply, b"", "AT", "bundle") is ReasonCode.MALFORMED


def test_there_is_one_message_of_each_country_in_order() -> None:
    names = ("AT", "BE", "CZ")
    peers = {name: IDENTITIES[name].public for name in names}
    said = [
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
    assert open_all(said, peers, PHASE_BUNDLE, CONTEXT) == {n: n.encode() for n in names}
    for wrong in (said[:2], said[::-1], [*said, said[0]], [said[0], said[0], said[2]], []):
        assert code_of(open_all, wrong, peers, PHASE_BUNDLE, CONTEXT) is ReasonCode.ROSTER


def test_parcels_are_for_exactly_those_they_should_be() -> None:
    given = parcels({"AT": b"1", "BE": b"2"})
    assert unpack_parcels(given, ("AT", "BE")) == {"AT": b"1", "BE": b"2"}
    for wrong in (("AT",), ("BE", "AT"), ("AT", "BE", "CZ"), ("AT", "CZ"), ()):
        assert code_of(unpack_parcels, given, wrong) is ReasonCode.ROSTER
    twice = [*given, given[0]]
    assert code_of(unpack_parcels, twice, ("AT", "BE")) is ReasonCode.ROSTER


def test_who_is_behind_is_told_what_is_newer() -> None:
    own = versions_of(("AT", "BE"))
    require_current(own, own, "BE")
    with pytest.raises(Refusal, match="country-BE") as refusal:
        require_current(own, versions_of(("AT", "BE"), BE=4), "BE")
    assert refusal.value.code is ReasonCode.DOCUMENTS_BEHIND
