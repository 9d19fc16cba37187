from dataclasses import replace

import pytest

from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.messages import read_request
from protocols.proto.round_pb2 import PHASE_BUNDLE, PHASE_CONFIRM
from protocols.wire.signed_message import ROSTER, open_signed
from tests.support.protocol_world import (
    IDENTITIES,
    altered_request,
    coordinator_of,
    terms_of,
    versions_of,
    view_of,
)

TERMS = terms_of(3)
VIEW = view_of("BE", TERMS)


def test_a_view_belongs_to_one_country_of_the_roster() -> None:
    assert VIEW.others == ("AT", "CZ")


@pytest.mark.parametrize(
    "changes",
    [
        {"country": "DK"},
        {"country": "AT"},
        {"identity": IDENTITIES["AT"]},
        {"peers": {"BE": IDENTITIES["BE"].public}},
        {"peers": {name: IDENTITIES[name].public for name in ("AT", "BE", "CZ", "DK")}},
    ],
    ids=["outsider", "another", "other-key", "too-few", "too-many"],
)
def test_keys_of_another_roster_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(Refusal) as refusal:
        replace(VIEW, **changes)  # type: ignore[arg-type]
    assert refusal.value.code is ReasonCode.ROSTER


def test_what_a_country_signs_verifies_by_its_documents() -> None:
    signed = VIEW.sign(PHASE_BUNDLE, TERMS.context, ROSTER, b"body")
    binding = {"phase": PHASE_BUNDLE, "context": TERMS.context, "sender": "BE", "receiver": ROSTER}
    assert open_signed(signed, VIEW.peers["BE"], **binding) == b"body"  # type: ignore[arg-type]


def test_trust_needs_key_phase_and_current_documents() -> None:
    request = read_request(coordinator_of(TERMS).bundle_request("BE"))
    VIEW.trust(request, PHASE_BUNDLE, TERMS.context)
    behind = replace(VIEW, versions=versions_of(TERMS.roster, AT=2))
    for view, phase, code in (
        (VIEW, PHASE_CONFIRM, ReasonCode.STALE),
        (replace(VIEW, coordinator=VIEW.identity.public), PHASE_BUNDLE, ReasonCode.NOT_AUTHENTIC),
        (behind, PHASE_BUNDLE, ReasonCode.DOCUMENTS_BEHIND),
    ):
        with pytest.raises(Refusal) as refusal:
            view.trust(request, phase, TERMS.context)
        assert refusal.value.code is code


def test_words_must_be_addressed_to_the_roster_and_not_to_one_country() -> None:
    data = coordinator_of(TERMS).bundle_request("BE")
    for country in TERMS.roster:
        view = view_of(country, TERMS)
        view.trust(read_request(data), PHASE_BUNDLE, TERMS.context)
        for receiver in (*TERMS.roster, "coordinator", ""):
            request = read_request(altered_request(data, receiver=receiver))
            with pytest.raises(Refusal) as refusal:
                view.trust(request, PHASE_BUNDLE, TERMS.context)
            assert refusal.value.code is ReasonCode.STALE


def test_a_country_with_newer_documents_continues() -> None:
    request = read_request(coordinator_of(TERMS).bundle_request("BE"))
    ahead = replace(VIEW, versions=versions_of(TERMS.roster, AT=4))
    ahead.trust(request, PHASE_BUNDLE, TERMS.context)


def test_a_country_s_own_message_must_be_the_one_it_sent() -> None:
    signed = [
        view_of(name, TERMS).sign(PHASE_BUNDLE, TERMS.context, ROSTER, name.encode())
        for name in TERMS.roster
    ]
    bodies = VIEW.open_roster(signed, TERMS.roster, PHASE_BUNDLE, TERMS.context, b"BE")
    assert bodies == {"AT": b"AT", "BE": b"BE", "CZ": b"CZ"}
    with pytest.raises(Refusal, match="this country's name") as refusal:
        VIEW.open_roster(signed, TERMS.roster, PHASE_BUNDLE, TERMS.context, b"what was really sent")
    assert refusal.value.code is ReasonCode.NOT_AUTHENTIC
