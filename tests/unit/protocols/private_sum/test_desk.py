import pytest

from protocols.errors import ProtocolFault, Refusal
from protocols.private_sum.desk import Desk, keep
from protocols.private_sum.messages import read_request
from protocols.proto.round_pb2 import PHASE_BUNDLE, BundleRequest, RequestBody
from protocols.signed import ROSTER
from tests.support.federation import COORDINATOR_KEY, IDENTITIES, terms_of, versions_of, view_of

TERMS = terms_of(3)
DESK = Desk(
    TERMS,
    {name: IDENTITIES[name].public for name in TERMS.roster},
    COORDINATOR_KEY.sign,
    versions_of(TERMS.roster),
)
CONTENT = RequestBody(bundle=BundleRequest(roster=TERMS.roster))


def test_a_request_says_which_run_it_is_about() -> None:
    request = read_request(DESK.request("AT", PHASE_BUNDLE, TERMS.context, CONTENT))
    assert (request.agreement, request.study, request.run_id) == (
        TERMS.agreement,
        TERMS.study,
        TERMS.run_id,
    )
    assert request.versions == DESK.versions
    view_of("AT", TERMS).trust(request, PHASE_BUNDLE, TERMS.context)


def test_a_reply_opens_for_its_speaker_only() -> None:
    signed = view_of("AT", TERMS).sign(PHASE_BUNDLE, TERMS.context, ROSTER, b"body")
    assert DESK.open(signed, "AT", PHASE_BUNDLE, TERMS.context, ROSTER) == b"body"
    with pytest.raises(Refusal):
        DESK.open(signed, "BE", PHASE_BUNDLE, TERMS.context, ROSTER)
    with pytest.raises(ProtocolFault, match="DK"):
        DESK.open(signed, "DK", PHASE_BUNDLE, TERMS.context, ROSTER)


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
