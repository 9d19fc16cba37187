"""A thief of nodes' states works with the liar: what opens depends on when they were taken.

A state holds the pair chains of future rounds. While a round is open it also holds its mask keys,
sealing keys and own share; it holds nothing of rounds that are answered or older than the open one.
A node seized during a round therefore counts as a colluder in it and in the rest of the run: it
opens its own part, no other country's, and only once t shares are there.
"""

import pytest

from protocols.private_sum.coordinator_round import CoordinatorRound
from tests.support.lying_coordinator import (
    ROSTER,
    WITHOUT_DK,
    LyingCoordinator,
    five,
)
from tests.support.protocol_world import state_of


def seize_all(liar: LyingCoordinator) -> None:
    for country in liar.honest:
        liar.seize(country)


def test_all_nodes_seized_after_answering_open_no_more_than_was_open() -> None:
    liar = five()
    round_ = liar.contributed()
    liar.answer_all(round_, ROSTER)
    assert liar.opens(round_) == (liar.honest,)
    seize_all(liar)
    assert liar.opens(round_) == (liar.honest,)


def test_all_members_seized_after_answering_for_a_smaller_set_open_no_more() -> None:
    """DK is outside the set and contributed late; its state, seized as well, opens nothing."""
    liar = five()
    round_ = liar.contributed()
    liar.agree_all(round_, WITHOUT_DK)
    liar.answer_all(round_, WITHOUT_DK)
    seize_all(liar)
    assert liar.opens(round_) == (("AT", "BE", "CZ"),)


@pytest.mark.parametrize("signed", [False, True], ids=["contributed", "signed"])
def test_all_nodes_seized_after_the_next_round_began_open_no_void_round(*, signed: bool) -> None:
    liar = five()
    void = liar.contributed(1)
    if signed:
        liar.agree_all(void, WITHOUT_DK)
    liar.contributed(2)
    seize_all(liar)
    assert liar.opens(void) == ()


def test_all_nodes_seized_after_the_next_round_began_open_no_half_answered_round() -> None:
    """Two of the four needed countries had answered; the others have erased their keys."""
    liar = five(colluding=0)
    void = liar.contributed(1)
    for country in ("AT", "BE"):
        liar.answer(void, country, ROSTER)
    liar.contributed(2)
    seize_all(liar)
    assert liar.opens(void) == ()


def during_a_round(liar: LyingCoordinator, kind: str) -> tuple[CoordinatorRound, tuple[str, ...]]:
    """Return an open round with all contributions, and with signatures if the set is smaller."""
    round_ = liar.contributed()
    if kind == "smaller":
        liar.agree_all(round_, WITHOUT_DK)
    return round_, ROSTER if kind == "roster" else WITHOUT_DK


@pytest.mark.parametrize("kind", ["roster", "smaller"])
@pytest.mark.parametrize("colluding", [1, 2])
def test_a_node_seized_during_a_round_opens_nothing_with_fewer_than_t_shares(
    colluding: int, kind: str
) -> None:
    """t = 4: c colluders, the thief's node, and answers up to t − 1 shares in all."""
    liar = five(colluding)
    round_, chosen = during_a_round(liar, kind)
    liar.seize("AT")
    assert liar.opens(round_) == ()
    for country in ("BE", "CZ")[: liar.world.terms.threshold - colluding - 2]:
        liar.answer(round_, country, chosen)
        assert liar.opens(round_) == ()


@pytest.mark.parametrize("kind", ["roster", "smaller"])
def test_with_t_shares_a_node_seized_during_a_round_opens_only_its_own_part(
    kind: str,
) -> None:
    """Its masks are known, so it counts as a colluder; the other countries do not."""
    liar = five()
    round_ = liar.contributed()
    liar.seize("AT")
    chosen = ROSTER if kind == "roster" else WITHOUT_DK
    if kind == "smaller":
        liar.agree_all(round_, chosen)
    for country in ("BE", "CZ"):
        liar.answer(round_, country, chosen)
    rest = ("BE", "CZ", "DK") if kind == "roster" else ("BE", "CZ")
    assert liar.opens(round_) == (("AT",), rest)


def test_a_node_seized_after_signing_a_set_opens_no_part_of_it() -> None:
    """It still has the keys of its masks with DK only, and DK is outside the set."""
    liar = five()
    round_ = liar.contributed()
    liar.agree_all(round_, WITHOUT_DK)
    stored = state_of(liar.world.countries["AT"]).open_round
    assert stored is not None
    assert stored.masks.keys() == {"DK"}
    liar.seize("AT")
    assert liar.opens(round_) == ()
    for country in ("BE", "CZ"):
        liar.answer(round_, country, WITHOUT_DK)
    assert liar.opens(round_) == (("AT", "BE", "CZ"),)


@pytest.mark.parametrize("seized_count", [0, 1, 2, 3])
def test_t_shares_of_seized_nodes_open_a_round_without_an_answer(
    seized_count: int,
) -> None:
    """Three honest states and a colluder's give four shares: t, and every secret is there."""
    liar = five()
    round_ = liar.contributed()
    for country in liar.honest[:seized_count]:
        liar.seize(country)
    opens = liar.opens(round_)
    assert bool(opens) == (seized_count + 1 >= liar.world.terms.threshold)


def test_a_seized_node_is_a_colluder_from_then_on_and_not_before() -> None:
    liar = five(colluding=2)
    first = liar.contributed(1)
    liar.answer_all(first, ROSTER)
    liar.seize("AT")
    assert liar.opens(first) == (("AT", "BE", "CZ"),)
    second = liar.contributed(2)
    assert liar.opens(second) == ()
    for country in ("BE", "CZ"):
        liar.answer(second, country, ROSTER)
    assert liar.opens(second) == (("AT",), ("BE", "CZ"))
