import pytest

from protocols.errors import ProtocolFault, Refusal
from protocols.private_sum.coordinator_view import CoordinatorView, Unpublished, keep
from protocols.private_sum.messages import read_request, write_request
from protocols.proto.round_pb2 import PHASE_BUNDLE, BundleRequest, RequestBody, Signed
from protocols.wire.signed_message import ROSTER
from tests.support.protocol_world import (
    COORDINATOR_KEY,
    IDENTITIES,
    terms_of,
    versions_of,
    view_of,
)

TERMS = terms_of(3)
DESK = CoordinatorView(
    TERMS,
    {name: IDENTITIES[name].public for name in TERMS.roster},
    COORDINATOR_KEY.sign,
    versions_of(TERMS.roster),
    lambda: versions_of(TERMS.roster, AT=4),
)
CONTENT = RequestBody(bundle=BundleRequest(roster=TERMS.roster))


def test_a_request_says_which_run_it_is_about() -> None:
    asked = RequestBody.FromString(CONTENT.SerializeToString())
    request = read_request(write_request(DESK.ask(PHASE_BUNDLE, TERMS.context, asked)))
    assert (request.agreement, request.study, request.run_id) == (
        TERMS.agreement,
        TERMS.study,
        TERMS.run_id,
    )
    assert request.versions == DESK.versions
    assert request.roster == TERMS.roster
    for country in TERMS.roster:
        view_of(country, TERMS).trust(request, PHASE_BUNDLE, TERMS.context)


def test_a_reply_opens_for_its_speaker_only() -> None:
    signed = view_of("AT", TERMS).sign(PHASE_BUNDLE, TERMS.context, ROSTER, b"body")
    assert DESK.open(signed, "AT", PHASE_BUNDLE, TERMS.context, ROSTER) == b"body"
    with pytest.raises(Refusal):
        DESK.open(signed, "BE", PHASE_BUNDLE, TERMS.context, ROSTER)
    with pytest.raises(ProtocolFault, match="DK"):
        DESK.open(signed, "DK", PHASE_BUNDLE, TERMS.context, ROSTER)


def test_what_nobody_signed_does_not_travel_on() -> None:
    """A field that is not known here would be shown to every other country, at any size."""
    said = view_of("AT", TERMS).sign(PHASE_BUNDLE, TERMS.context, ROSTER, b"body")
    unknown = bytes([0xFA, 0x07, 0x83, 0x01]) + bytes(131)  # field 127, 131 bytes
    stuffed = Signed.FromString(said.SerializeToString() + unknown)
    assert stuffed.ByteSize() == said.ByteSize() + 135
    assert DESK.open(stuffed, "AT", PHASE_BUNDLE, TERMS.context, ROSTER) == b"body"
    assert stuffed == said
    assert stuffed.SerializeToString() == said.SerializeToString()


@pytest.mark.parametrize("claimed", [{}, {"AT": 4}, {"BE": 2}], ids=str)
def test_what_is_published_by_now_may_be_claimed(claimed: dict[str, int]) -> None:
    DESK.require_published("AT", versions_of(TERMS.roster, **claimed))


@pytest.mark.parametrize("claimed", [{"AT": 5}, {"BE": 4}], ids=str)
def test_what_is_not_published_may_not(claimed: dict[str, int]) -> None:
    with pytest.raises(Unpublished, match=rf"CZ has documents .* country-{next(iter(claimed))}"):
        DESK.require_published("CZ", versions_of(TERMS.roster, **claimed))


def test_whoever_is_missing_is_named() -> None:
    DESK.require_all(dict.fromkeys(TERMS.roster, b""))
    with pytest.raises(ProtocolFault, match="AT, CZ"):
        DESK.require_all({"BE": b""})


def test_the_first_word_counts() -> None:
    store = {"AT": b"one"}
    keep(store, "AT", b"one")
    keep(store, "BE", b"two")
    with pytest.raises(ProtocolFault, match="AT"):
        keep(store, "AT", b"other")
    assert store == {"AT": b"one", "BE": b"two"}
