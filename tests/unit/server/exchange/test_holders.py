"""Whose calls and connections are, and how much each holder may have."""

from datetime import UTC, datetime

import pytest

from keys.certificates import Peer, Role
from protocols.wire.channel import MAX_MESSAGE
from server.exchange.fencing import ACTS, Claim, Rank
from server.exchange.holders import (
    LITTLE_BYTES,
    NODE_BYTES,
    OF_GUEST,
    OF_MEMBER,
    OF_OTHERS,
    holder_of,
)
from server.exchange.service import LARGEST_REQUEST

OTHER, FORMER = Claim(Rank.OTHER), Claim(Rank.FORMER, 2)


def peer(role: Role = Role.NODE, serial: int = 1, country: str = "AT") -> Peer:
    return Peer("danube", country, role, serial, datetime(2027, 1, 1, tzinfo=UTC))


def test_a_party_is_one_holder_whatever_its_certificates_and_a_guest_is_its_invitation() -> None:
    assert holder_of(peer()) == holder_of(peer(serial=2))
    assert holder_of(peer()) != holder_of(peer(Role.OFFICER))
    assert holder_of(peer()) != holder_of(peer(country="BE"))
    assert holder_of(peer(Role.ENROLMENT)) != holder_of(peer(Role.ENROLMENT, serial=2))


@pytest.mark.parametrize(
    ("role", "claim", "most", "most_bytes"),
    [
        (Role.NODE, ACTS, OF_MEMBER, NODE_BYTES),
        (Role.NODE, OTHER, OF_OTHERS, LITTLE_BYTES),
        (Role.NODE, FORMER, OF_OTHERS, LITTLE_BYTES),
        (Role.OFFICER, ACTS, OF_MEMBER, LITTLE_BYTES),
        (Role.ENROLMENT, ACTS, OF_GUEST, LITTLE_BYTES),
    ],
)
def test_how_much_a_holder_may_have(role: Role, claim: Claim, most: int, most_bytes: int) -> None:
    holder = holder_of(peer(role), claim)
    assert (holder.most, holder.most_bytes) == (most, most_bytes)


def test_bytes_of_all_sessions_that_do_not_act_count_together() -> None:
    node, other, former = (holder_of(peer(), claim) for claim in (ACTS, OTHER, FORMER))
    assert other.shares_with(former)
    assert not other.shares_with(node)
    assert not other.shares_with(holder_of(peer(country="BE"), OTHER))


def test_each_holder_has_room_for_the_largest_request_that_it_makes() -> None:
    assert NODE_BYTES >= MAX_MESSAGE
    assert max(LARGEST_REQUEST[call] for call in ("Submit", "Enrol", "Fetch")) <= LITTLE_BYTES
