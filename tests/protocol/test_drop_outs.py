"""Countries that drop out at any stage, in any combination: the sum is exact, or the round is void.

Both sides' real state machines, the coordinator keeping the rules. In each case the round comes to
its end, and the next one, with everybody back, opens exactly.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import combinations, combinations_with_replacement, product

import numpy as np
import pytest
from numpy.typing import NDArray

from protocols.errors import ProtocolFault, Refusal
from protocols.private_sum.context import RunTerms
from protocols.private_sum.coordinator_round import CoordinatorRound, OpenedSum, VoidRound
from protocols.private_sum.country_run import CountryRun
from tests.support.protocol_world import (
    MODEL,
    TRAIN,
    ProtocolWorld,
    terms_of,
    view_of,
)

SET_UP = ("bundle", "encapsulate", "confirm")
FATES: tuple[tuple[str, ...], ...] = (
    (),
    ("contribute",),
    ("agree", "answer"),
    ("answer",),
    ("agree",),
)
"""What a country misses of a round; who did not contribute is asked nothing more."""
Missed = Mapping[str, tuple[str, ...]]


def settings(*sizes: int) -> list[tuple[int, int, int]]:
    """Return (n, c, h): no colluders, one, two and as many as fit, lowest and highest floors."""
    return sorted(
        {
            (n, c, h)
            for n in sizes
            for c in {0, 1, 2, n - 2}
            for h in {2, n - c}
            if c >= 0 and 2 <= h <= n - c
        }
    )


@cache
def template(size: int, colluding: int, honest: int) -> tuple[ProtocolWorld, dict[str, bytes]]:
    """Return a world set up, and what each of its countries has stored."""
    world = ProtocolWorld.ready(size, colluding=colluding, honest=honest)
    return world, {one: run.to_bytes() for one, run in world.countries.items()}


def world_of(size: int, colluding: int, honest: int) -> ProtocolWorld:
    """Return a world set up; the set-up itself is done once for all."""
    made, stored = template(size, colluding, honest)
    runs = {
        one: CountryRun.from_bytes(state, view_of(one, made.terms)) for one, state in stored.items()
    }
    return ProtocolWorld(made.terms, made.twin(), runs)


def given(roster: tuple[str, ...], number: int) -> dict[str, NDArray[np.int64]]:
    """Return what each country contributes: no two sets of them have the same sum."""
    ones = np.arange(1, TRAIN.dimension + 1, dtype=np.int64)
    return {one: ones * (number - 3) * 7**place for place, one in enumerate(roster)}


def begun(world: ProtocolWorld, missed: Missed) -> CoordinatorRound:
    opened = world.coordinator.begin_round(1, "train", MODEL)
    values = given(world.terms.roster, 1)
    for one in world.terms.roster:
        if "contribute" not in missed[one]:
            world.contribute(opened, one, values[one])
    return opened


def ended(world: ProtocolWorld, opened: CoordinatorRound, missed: Missed) -> OpenedSum | VoidRound:
    """Take a round to its end, asking for no more once it cannot open any longer."""
    chosen = opened.close()
    if not opened.openable:
        return opened.open()
    for one in chosen if opened.smaller else ():
        if "agree" not in missed[one]:
            world.agree(opened, one)
    if opened.smaller and len(opened.agreed) < world.terms.threshold:
        with pytest.raises(ProtocolFault, match="Too few countries have agreed"):
            opened.answer_request(chosen[0])
        return opened.open()
    for one in chosen:
        if "answer" not in missed[one]:
            world.answer(opened, one)
    return opened.open()


def opens(terms: RunTerms, missed: Missed) -> bool:
    """Return whether the round is to open, after the design."""
    left = [one for one in terms.roster if "contribute" not in missed[one]]
    agreed = [one for one in left if "agree" not in missed[one]]
    answered = [one for one in left if "answer" not in missed[one]]
    threshold = (len(terms.roster) + terms.colluding) // 2 + 1
    if len(left) == len(terms.roster):
        return len(answered) >= threshold
    enough = len(left) >= max(terms.honest + terms.colluding, threshold)
    return enough and len(agreed) >= threshold and answered == left


def require_exact_or_void(world: ProtocolWorld, missed: Missed) -> None:
    result = ended(world, begun(world, missed), missed)
    roster = world.terms.roster
    left = tuple(one for one in roster if "contribute" not in missed[one])
    assert isinstance(result, OpenedSum) == opens(world.terms, missed)
    if isinstance(result, OpenedSum):
        assert result.countries == left
        assert (result.values == sum(given(roster, 1)[one] for one in left)).all()
        assert result.variance == len(left) * TRAIN.noise_std**2
        assert result.unopenable == ()
    else:
        assert set(result.missing) <= {one for one in roster if missed[one]}
    require_return(world)


def require_return(world: ProtocolWorld) -> None:
    after = world.sum(2, "train", values := given(world.terms.roster, 2))
    assert isinstance(after, OpenedSum)
    assert after.countries == world.terms.roster
    assert (after.values == sum(values.values())).all()


def subsets(countries: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for size in range(1, len(countries) + 1):
        yield from combinations(countries, size)


def require_any_set(fate: tuple[str, ...], size: int, colluding: int, honest: int) -> None:
    for gone in subsets(terms_of(size).roster):
        world = world_of(size, colluding, honest)
        missed = {one: fate if one in gone else () for one in world.terms.roster}
        require_exact_or_void(world, missed)


@pytest.mark.parametrize(("size", "colluding", "honest"), [*settings(2, 3, 4), (5, 1, 2)], ids=str)
@pytest.mark.parametrize("fate", FATES[1:], ids="-".join)
def test_any_set_of_countries_gone_before_any_step_of_a_round(
    fate: tuple[str, ...], size: int, colluding: int, honest: int
) -> None:
    require_any_set(fate, size, colluding, honest)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "colluding", "honest"), settings(5, 6), ids=str)
@pytest.mark.parametrize("fate", FATES[1:], ids="-".join)
def test_any_set_of_five_or_six_gone_before_any_step_of_a_round(
    fate: tuple[str, ...], size: int, colluding: int, honest: int
) -> None:
    require_any_set(fate, size, colluding, honest)


def require_each(size: int, colluding: int, honest: int, *, order: bool) -> None:
    """Try each country with each fate; without `order`, how many have which, and not who."""
    every = product(FATES, repeat=size) if order else combinations_with_replacement(FATES, size)
    for fates in every:
        world = world_of(size, colluding, honest)
        require_exact_or_void(world, dict(zip(world.terms.roster, fates, strict=True)))


@pytest.mark.parametrize(("size", "colluding", "honest"), settings(2, 3), ids=str)
def test_every_country_gone_at_a_step_of_its_own(size: int, colluding: int, honest: int) -> None:
    require_each(size, colluding, honest, order=True)


@pytest.mark.parametrize(("size", "colluding", "honest"), settings(4), ids=str)
def test_as_many_of_four_as_you_like_gone_at_each_step(
    size: int, colluding: int, honest: int
) -> None:
    require_each(size, colluding, honest, order=False)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("size", "colluding", "honest"), settings(4), ids=str)
def test_every_country_of_four_gone_at_a_step_of_its_own(
    size: int, colluding: int, honest: int
) -> None:
    require_each(size, colluding, honest, order=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("size", "colluding", "honest"), settings(5, 6), ids=str)
def test_as_many_of_six_as_you_like_gone_at_each_step(
    size: int, colluding: int, honest: int
) -> None:
    require_each(size, colluding, honest, order=False)


def test_rounds_with_other_countries_gone_each_time_open_one_after_the_other() -> None:
    """(5, 1, 2): t = 4, one may be gone; it is back in the next round, when another is."""
    world = ProtocolWorld.ready(5, mechanisms=(TRAIN.model_copy(update={"rounds": 20}),), honest=2)
    roster = world.terms.roster
    for number, gone in enumerate([*roster, None, *roster], 1):
        values = {one: row for one, row in given(roster, number).items() if one != gone}
        result = world.sum(number, "train", values)
        assert isinstance(result, OpenedSum)
        assert result.countries == tuple(values)
        assert (result.values == sum(values.values())).all()


# ---- set-up


def stopped(world: ProtocolWorld, step: str, gone: tuple[str, ...]) -> None:
    """Take set-up as far as it goes when `gone` are gone from `step` on."""
    for earlier in SET_UP[: SET_UP.index(step)]:
        world.set_up(earlier)
    for one in world.terms.roster:
        if one not in gone:
            world.exchange(step, one)


def go_on(world: ProtocolWorld, step: str) -> object:
    """Do what follows a step of set-up."""
    if step == "confirm":
        return world.coordinator.begin_round(1, "train", MODEL)
    following = SET_UP[SET_UP.index(step) + 1]
    return getattr(world.coordinator, f"{following}_request")(world.terms.roster[0])


@pytest.mark.parametrize("size", [2, 3, 4, 5, pytest.param(6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("step", SET_UP)
def test_any_set_of_countries_gone_from_set_up_lets_nothing_begin_and_may_return(
    step: str, size: int
) -> None:
    for gone in subsets(terms_of(size).roster):
        world = ProtocolWorld.of(size)
        stopped(world, step, gone)
        with pytest.raises(ProtocolFault, match=f"No reply yet from {', '.join(gone)}"):
            go_on(world, step)
        assert not any(run.awaits_answer for run in world.countries.values())
        if len(gone) == 1:
            world.exchange(step, gone[0])
            for later in SET_UP[SET_UP.index(step) + 1 :]:
                world.set_up(later)
            require_return(world)


@pytest.mark.parametrize("size", [3, 4, 5, 6])
def test_those_that_are_left_begin_another_run_as_long_as_they_are_enough(size: int) -> None:
    everyone = terms_of(size).roster
    for gone in subsets(everyone):
        left = tuple(one for one in everyone if one not in gone)
        changes = {"roster": left, "colluding": 1, "honest": 2, "run_id": bytes(16)}
        if len(left) < 3:
            with pytest.raises(Refusal, match="fewer than"):
                ProtocolWorld.ready(size, **changes)
        else:
            require_return(ProtocolWorld.ready(size, **changes))
