import pytest

from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.dealt_shares import commitments_for, read_dealt, sealed_by_holder
from protocols.private_sum.messages import SEALED_BYTES

ROSTER = ("AT", "BE", "CZ")


def part(owner: str, holder: str, size: int) -> bytes:
    return (owner + holder).encode().ljust(size, b".")


def joined(owner: str, size: int, *, own: bool) -> bytes:
    return b"".join(part(owner, h, size) for h in ROSTER if own or h != owner)


SEALED = {owner: joined(owner, SEALED_BYTES, own=False) for owner in ROSTER}
COMMITMENTS = {owner: joined(owner, 32, own=True) for owner in ROSTER}


def test_parts_are_found_by_holder() -> None:
    dealt = read_dealt(ROSTER, {"BE": b"mark"}, COMMITMENTS, SEALED)
    assert list(dealt) == ["BE"]
    assert dealt["BE"].sealed == {h: part("BE", h, SEALED_BYTES) for h in ("AT", "CZ")}
    assert dealt["BE"].commitments == {h: part("BE", h, 32) for h in ROSTER}
    assert dealt["BE"].seed_commitment == b"mark"


def test_parts_of_another_length_are_refused() -> None:
    with pytest.raises(Refusal) as refusal:
        read_dealt(ROSTER, {"BE": b""}, COMMITMENTS, SEALED | {"BE": SEALED["BE"][:-1]})
    assert refusal.value.code is ReasonCode.ROSTER


def test_the_table_has_a_row_for_each_holder_and_zeros_for_its_own() -> None:
    table = sealed_by_holder(ROSTER, ("AT", "CZ"), SEALED)
    assert table.shape == (3, 2, SEALED_BYTES)
    assert table[1, 1].tobytes() == part("CZ", "BE", SEALED_BYTES)
    assert not table[0, 0].any()


def test_commitments_are_those_for_one_holder() -> None:
    assert commitments_for(1, COMMITMENTS) == b"".join(part(o, "BE", 32) for o in ROSTER)
