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
    parsed = RequestBody.FromString(CONTENT.SerializeToString())
    request = read_request(write_request(DESK.ask(PHASE_BUNDLE, TERMS.context, parsed)))
    assert (request.agreement, request.study, request.run_id) == (
        TERMS.agreement,
        TERMS.study,
        TERMS.run_id,
    )
    assert request.versions == DESK.versions
    assert request.roster == TERMS.roster
    for country in TERMS.roster:
        view_of(country, TERMS).trust(request, PHASE_BUNDLE, TERMS.context)


def test_a_reply_is_accepted_from_its_sender_only() -> None:
    signed = view_of("AT", TERMS).sign(PHASE_BUNDLE, TERMS.context, ROSTER, b"body")
    assert DESK.open(signed, "AT", PHASE_BUNDLE, TERMS.context, ROSTER) == b"body"
    with pytest.raises(Refusal):
        DESK.open(signed, "BE", PHASE_BUNDLE, TERMS.context, ROSTER)
    with pytest.raises(ProtocolFault, match="DK"):
        DESK.open(signed, "DK", PHASE_BUNDLE, TERMS.context, ROSTER)


def test_unsigned_fields_are_refused() -> None:
    """Otherwise every other country would be shown an unknown field of any size."""
    signed = view_of("AT", TERMS).sign(PHASE_BUNDLE, TERMS.context, ROSTER, b"body")
    unknown = bytes([0xFA, 0x07, 0x83, 0x01]) + bytes(131)  # field 127, 131 bytes
    stuffed = Signed.FromString(signed.SerializeToString() + unknown)
    assert stuffed.ByteSize() == signed.ByteSize() + 135
    assert DESK.open(stuffed, "AT", PHASE_BUNDLE, TERMS.context, ROSTER) == b"body"
    assert stuffed == signed
    assert stuffed.SerializeToString() == signed.SerializeToString()


@pytest.mark.parametrize("claimed", [{}, {"AT": 4}, {"BE": 2}], ids=str)
def test_documents_published_meanwhile_may_be_claimed(claimed: dict[str, int]) -> None:
    DESK.require_published("AT", versions_of(TERMS.roster, **claimed))


@pytest.mark.parametrize("claimed", [{"AT": 5}, {"BE": 4}], ids=str)
def test_unpublished_documents_may_not_be_claimed(claimed: dict[str, int]) -> None:
    with pytest.raises(Unpublished, match=rf"CZ has documents .* country-{next(iter(claimed))}"):
        DESK.require_published("CZ", versions_of(TERMS.roster, **claimed))


def test_missing_countries_are_named() -> None:
    DESK.require_all(dict.fromkeys(TERMS.roster, b""))
    with pytest.raises(ProtocolFault, match="AT, CZ"):
        DESK.require_all({"BE": b""})


def test_the_first_reply_counts() -> None:
    store = {"AT": b"one"}
    keep(store, "AT", b"one")
    keep(store, "BE", b"two")
    with pytest.raises(ProtocolFault, match="AT"):
        keep(store, "AT", b"other")
    assert store == {"AT": b"one", "BE": b"two"}
