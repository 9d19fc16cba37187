"""Which connections to the public port stay open."""

from datetime import UTC, datetime

import pytest

from keys.certificates import Peer, Role
from server.exchange.connection_limits import (
    DESCRIPTORS_EACH,
    FIRST_CALL_SECONDS,
    GUEST_SECONDS,
    KNOWN_SECONDS,
    KNOWN_TIMES,
    MOST_CONNECTIONS,
    MOST_KNOWN,
    SETTLED_SECONDS,
    ConnectionLimits,
    Room,
    network_of,
)
from server.exchange.fencing import Claim, Rank
from server.exchange.holders import OF_GUEST, OF_MEMBER, OF_OTHERS

ROOM = Room(total=20, of_address=4)
OURS, THEIRS = "10.0.0.1", "10.9.9.9"
OTHER = Claim(Rank.OTHER)


def peer(serial: int = 1, role: Role = Role.NODE) -> Peer:
    return Peer("danube", "AT", role, serial, datetime(2027, 1, 1, tzinfo=UTC))


def strange(number: int) -> str:
    return f"192.0.2.{number}"


def admit(limits: ConnectionLimits, address: str, now: float) -> tuple[int, list[int]]:
    """Admit a connection that must not be refused."""
    admitted = limits.admit(address, now)
    assert admitted is not None
    return admitted


def test_room_is_below_the_limit_of_descriptors() -> None:
    assert Room.within(1024, 32).total * DESCRIPTORS_EACH < 1024 - 255
    assert Room.within(64, 32).total > 0
    assert Room.within(10**6, 32).total == MOST_CONNECTIONS


def test_the_oldest_connection_of_a_full_address_ends_for_a_new_one() -> None:
    limits = ConnectionLimits(ROOM)
    numbers = [admit(limits, OURS, 0.0)[0] for _ in range(ROOM.of_address)]
    assert limits.admit(OURS, SETTLED_SECONDS - 0.1) is None
    assert admit(limits, OURS, SETTLED_SECONDS)[1] == numbers[:1]
    assert admit(limits, THEIRS, 1.0)[1] == []


def test_strangers_push_out_the_strangers_with_most_connections() -> None:
    limits = ConnectionLimits(ROOM)
    crowd = [admit(limits, strange(1), 0.0)[0] for _ in range(4)]
    for number in range(2, 8):
        assert admit(limits, strange(number), 0.0)[1] == []
    honest, ending = admit(limits, THEIRS, 0.0)
    assert ending == crowd[:1]
    assert admit(limits, strange(99), 0.0)[1] == crowd[1:2]
    assert len(limits) == ROOM.strangers
    assert honest not in ending


def test_a_handshake_that_goes_on_outlasts_silent_connections() -> None:
    limits = ConnectionLimits(ROOM)
    limits.prove(admit(limits, OURS, 0.0)[0], peer(), OURS, 0.0)
    handshake = admit(limits, OURS, 0.0)[0]
    limits.received(handshake)
    silent = [admit(limits, OURS, 0.0)[0] for _ in range(4 * KNOWN_TIMES - 1)]
    for number in silent:
        assert admit(limits, OURS, 0.0)[1] == [number]


def test_strangers_with_equally_many_wait_until_the_oldest_has_settled() -> None:
    limits = ConnectionLimits(ROOM)
    first, *_ = [admit(limits, strange(number), 0.0)[0] for number in range(ROOM.strangers)]
    assert limits.admit(THEIRS, SETTLED_SECONDS - 0.1) is None
    assert admit(limits, THEIRS, SETTLED_SECONDS)[1] == [first]


def test_strangers_never_use_the_room_of_known_addresses_and_members() -> None:
    limits = ConnectionLimits(ROOM)
    limits.prove(admit(limits, OURS, 0.0)[0], peer(), OURS, 0.0)
    for number in range(250):
        limits.admit(strange(number), float(number))
    ending = [admit(limits, OURS, 1.0)[1] for _ in range(ROOM.total - ROOM.strangers - 1)]
    assert ending == [[]] * len(ending)
    assert len(limits) == ROOM.total
    assert admit(limits, OURS, 1.0)[1] != []
    assert len(limits) == ROOM.total


def test_a_known_address_may_have_more_for_a_week() -> None:
    limits = ConnectionLimits(Room(total=1000, of_address=4))
    limits.prove(admit(limits, OURS, 0.0)[0], peer(), OURS, 0.0)
    numbers = [admit(limits, OURS, 1.0) for _ in range(4 * KNOWN_TIMES)]
    assert all(ending == [] for _, ending in numbers)
    assert admit(limits, OURS, 1.0)[1] == [numbers[0][0]]
    for _ in range(4):
        assert admit(limits, OURS, KNOWN_SECONDS + 1)[1] == []
    assert limits.admit(OURS, KNOWN_SECONDS + 1) is None


def test_few_addresses_are_remembered() -> None:
    limits = ConnectionLimits(ROOM)
    for number in range(MOST_KNOWN + 10):
        address = f"10.1.{number // 256}.{number % 256}"
        limits.prove(0, peer(), address, 0.0)
    assert len(limits._known) == MOST_KNOWN


def test_a_guest_makes_no_address_known_and_has_few_connections_for_a_short_time() -> None:
    limits = ConnectionLimits(ROOM)
    guest = peer(7, Role.ENROLMENT)
    numbers = [admit(limits, OURS, 0.0)[0] for _ in range(OF_GUEST + 1)]
    ending = [limits.prove(number, guest, OURS, 5.0) for number in numbers]
    assert ending == [[]] * OF_GUEST + [numbers[:1]]
    assert not limits._known
    limits.prove(numbers[1], guest, OURS, GUEST_SECONDS)  # another call gives no more time
    assert limits.overdue(GUEST_SECONDS + 4.0) == []
    assert limits.overdue(GUEST_SECONDS + 6.0) == numbers[1:]


def test_a_party_has_a_limit_whatever_its_addresses_and_certificates() -> None:
    limits = ConnectionLimits(Room(total=1000, of_address=4))
    numbers = []
    for number in range(OF_MEMBER + 1):
        address = strange(number)
        numbers.append(admit(limits, address, 0.0)[0])
        ending = limits.prove(numbers[-1], peer(serial=number), address, 0.0)
    assert ending == numbers[:1]
    assert limits.prove(numbers[0], peer(), OURS, 0.0) == []  # it has ended already


def test_connections_of_a_copy_end_none_of_the_session_that_acts() -> None:
    limits = ConnectionLimits(Room(total=1000, of_address=4))
    restart, node = admit(limits, OURS, 0.0)[0], admit(limits, OURS, 0.0)[0]
    assert limits.prove(restart, peer(), OURS, 0.0, Claim(Rank.LIKELY)) == []
    assert limits.prove(node, peer(), OURS, 0.0) == []
    copies = [admit(limits, strange(number), 0.0)[0] for number in range(OF_OTHERS + 1)]
    ending = [limits.prove(each, peer(), THEIRS, 0.0, OTHER) for each in copies]
    assert ending == [[]] * OF_OTHERS + [copies[:1]]
    assert limits.prove(copies[1], peer(), THEIRS, 0.0) == []  # it signed in
    assert limits.prove(admit(limits, OURS, 0.0)[0], peer(), OURS, 0.0, OTHER) == []


def test_copies_that_acted_end_no_connection_of_the_node_that_acted_before_them() -> None:
    """Their connections end instead, also if the node's is the oldest and nothing came over it."""
    limits = ConnectionLimits(Room(total=1000, of_address=4))
    node = admit(limits, OURS, 0.0)[0]
    assert limits.prove(node, peer(), OURS, 0.0, Claim(Rank.FORMER, 3)) == []
    copies = [admit(limits, strange(number), 0.0)[0] for number in range(2 * OF_OTHERS)]
    ended = []
    for place, copy in enumerate(copies):
        limits.received(copy)
        ended += limits.prove(copy, peer(), THEIRS, 0.0, Claim(Rank.FORMER, 4 + place % 3))
    assert node not in ended
    assert len(ended) == len(copies) - OF_OTHERS + 1
    more = [admit(limits, OURS, 0.0)[0] for _ in range(OF_OTHERS - 1)]
    for each in more:
        ending = limits.prove(each, peer(), OURS, 0.0, Claim(Rank.FORMER, 3))
        assert len(ending) == 1
        assert node not in ending


def test_without_a_call_a_connection_ends() -> None:
    limits = ConnectionLimits(ROOM)
    silent, called = admit(limits, OURS, 0.0)[0], admit(limits, OURS, 0.0)[0]
    limits.prove(called, peer(), OURS, 1.0)
    assert limits.overdue(FIRST_CALL_SECONDS) == []
    assert limits.overdue(FIRST_CALL_SECONDS + 1) == [silent]
    limits.disprove(called, 100.0)
    limits.disprove(called, 110.0)  # calls that are refused give no more time
    assert limits.overdue(101.0 + FIRST_CALL_SECONDS) == [called]
    assert len(limits) == 0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_an_address_counts_as_itself_or_as_its_network(address: str, network: str) -> None:
    assert network_of(address) == network
