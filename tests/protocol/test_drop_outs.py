"""Countries that drop out at any stage, in any combination: the sum is exact or the round void.

Real state machines of both sides, with a coordinator that follows the rules. In each case the round
ends, and the next one, with all countries, opens exactly.
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
"""The messages that a country misses in a round; one that did not contribute gets no more."""
Missed = Mapping[str, tuple[str, ...]]


def settings(*sizes: int) -> list[tuple[int, int, int]]:
    """Return (n, c, h): no, one, two and as many colluders as fit, smallest and largest h."""
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
    """Return a world after set-up, and the stored state of each country."""
    world = ProtocolWorld.ready(size, colluding=colluding, honest=honest)
    return world, {country: run.to_bytes() for country, run in world.countries.items()}


def world_of(size: int, colluding: int, honest: int) -> ProtocolWorld:
    """Return a world after set-up, which is computed once for all tests."""
    prepared, stored = template(size, colluding, honest)
    runs = {
        country: CountryRun.from_bytes(state, view_of(country, prepared.terms))
        for country, state in stored.items()
    }
    return ProtocolWorld(prepared.terms, prepared.twin(), runs)


def contributions_of(roster: tuple[str, ...], number: int) -> dict[str, NDArray[np.int64]]:
    """Return each country's contribution: no two sets of countries have the same sum."""
    ones = np.arange(1, TRAIN.dimension + 1, dtype=np.int64)
    return {country: ones * (number - 3) * 7**index for index, country in enumerate(roster)}


def contributed_round(world: ProtocolWorld, missed: Missed) -> CoordinatorRound:
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    values = contributions_of(world.terms.roster, 1)
    for country in world.terms.roster:
        if "contribute" not in missed[country]:
            world.contribute(round_, country, values[country])
    return round_


def run_to_end(
    world: ProtocolWorld, round_: CoordinatorRound, missed: Missed
) -> OpenedSum | VoidRound:
    """Run a round to its end; ask for nothing more once it cannot open any longer."""
    chosen = round_.close()
    if not round_.openable:
        return round_.open()
    for country in chosen if round_.smaller else ():
        if "agree" not in missed[country]:
            world.agree(round_, country)
    if round_.smaller and len(round_.agreed) < world.terms.threshold:
        with pytest.raises(ProtocolFault, match="Too few countries have agreed"):
            round_.answer_request(chosen[0])
        return round_.open()
    for country in chosen:
        if "answer" not in missed[country]:
            world.answer(round_, country)
    return round_.open()


def must_open(terms: RunTerms, missed: Missed) -> bool:
    """Return whether the design requires the round to open."""
    left = [country for country in terms.roster if "contribute" not in missed[country]]
    agreed = [country for country in left if "agree" not in missed[country]]
    answered = [country for country in left if "answer" not in missed[country]]
    threshold = (len(terms.roster) + terms.colluding) // 2 + 1
    if len(left) == len(terms.roster):
        return len(answered) >= threshold
    enough = len(left) >= max(terms.honest + terms.colluding, threshold)
    return enough and len(agreed) >= threshold and answered == left


def require_exact_or_void(world: ProtocolWorld, missed: Missed) -> None:
    result = run_to_end(world, contributed_round(world, missed), missed)
    roster = world.terms.roster
    left = tuple(country for country in roster if "contribute" not in missed[country])
    assert isinstance(result, OpenedSum) == must_open(world.terms, missed)
    if isinstance(result, OpenedSum):
        assert result.countries == left
        assert (
            result.values == sum(contributions_of(roster, 1)[country] for country in left)
        ).all()
        assert result.variance == len(left) * TRAIN.noise_std**2
        assert result.unopenable == ()
    else:
        assert set(result.missing) <= {country for country in roster if missed[country]}
    require_return(world)


def require_return(world: ProtocolWorld) -> None:
    after = world.sum(2, "train", values := contributions_of(world.terms.roster, 2))
    assert isinstance(after, OpenedSum)
    assert after.countries == world.terms.roster
    assert (after.values == sum(values.values())).all()


def subsets(countries: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for size in range(1, len(countries) + 1):
        yield from combinations(countries, size)


def require_any_set(fate: tuple[str, ...], size: int, colluding: int, honest: int) -> None:
    for gone in subsets(terms_of(size).roster):
        world = world_of(size, colluding, honest)
        missed = {country: fate if country in gone else () for country in world.terms.roster}
        require_exact_or_void(world, missed)


@pytest.mark.parametrize(("size", "colluding", "honest"), [*settings(2, 3, 4), (5, 1, 2)], ids=str)
@pytest.mark.parametrize("fate", FATES[1:], ids="-".join)
def test_any_set_of_countries_may_be_missing_from_any_step_on(
    fate: tuple[str, ...], size: int, colluding: int, honest: int
) -> None:
    require_any_set(fate, size, colluding, honest)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "colluding", "honest"), settings(5, 6), ids=str)
@pytest.mark.parametrize("fate", FATES[1:], ids="-".join)
def test_any_set_of_five_or_six_may_be_missing_from_any_step_on(
    fate: tuple[str, ...], size: int, colluding: int, honest: int
) -> None:
    require_any_set(fate, size, colluding, honest)


def require_each(size: int, colluding: int, honest: int, *, order: bool) -> None:
    """Try each country with each combination of missed messages.

    Without `order`, only the number of countries per combination varies, and not which ones.
    """
    every = product(FATES, repeat=size) if order else combinations_with_replacement(FATES, size)
    for fates in every:
        world = world_of(size, colluding, honest)
        require_exact_or_void(world, dict(zip(world.terms.roster, fates, strict=True)))


@pytest.mark.parametrize(("size", "colluding", "honest"), settings(2, 3), ids=str)
def test_each_country_may_be_missing_from_a_different_step(
    size: int, colluding: int, honest: int
) -> None:
    require_each(size, colluding, honest, order=True)


@pytest.mark.parametrize(("size", "colluding", "honest"), settings(4), ids=str)
def test_any_number_of_four_may_be_missing_at_each_step(
    size: int, colluding: int, honest: int
) -> None:
    require_each(size, colluding, honest, order=False)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("size", "colluding", "honest"), settings(4), ids=str)
def test_each_of_four_countries_may_be_missing_from_a_different_step(
    size: int, colluding: int, honest: int
) -> None:
    require_each(size, colluding, honest, order=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("size", "colluding", "honest"), settings(5, 6), ids=str)
def test_any_number_of_six_may_be_missing_at_each_step(
    size: int, colluding: int, honest: int
) -> None:
    require_each(size, colluding, honest, order=False)


def test_consecutive_rounds_open_with_different_countries_missing() -> None:
    """(5, 1, 2) gives t = 4: one may be missing, and is back when another one is missing."""
    world = ProtocolWorld.ready(5, mechanisms=(TRAIN.model_copy(update={"rounds": 20}),), honest=2)
    roster = world.terms.roster
    for number, gone in enumerate([*roster, None, *roster], 1):
        values = {
            country: row
            for country, row in contributions_of(roster, number).items()
            if country != gone
        }
        result = world.sum(number, "train", values)
        assert isinstance(result, OpenedSum)
        assert result.countries == tuple(values)
        assert (result.values == sum(values.values())).all()


# ---- set-up


def stopped(world: ProtocolWorld, step: str, gone: tuple[str, ...]) -> None:
    """Run set-up as far as possible if the countries in `gone` are missing from `step` on."""
    for earlier in SET_UP[: SET_UP.index(step)]:
        world.set_up(earlier)
    for country in world.terms.roster:
        if country not in gone:
            world.exchange(step, country)


def request_next_step(world: ProtocolWorld, step: str) -> object:
    """Make the first request of what follows a step of set-up."""
    if step == "confirm":
        return world.coordinator.begin_round(1, "train", MODEL)
    following = SET_UP[SET_UP.index(step) + 1]
    return getattr(world.coordinator, f"{following}_request")(world.terms.roster[0])


@pytest.mark.parametrize("size", [2, 3, 4, 5, pytest.param(6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("step", SET_UP)
def test_no_round_begins_while_countries_miss_set_up_and_they_may_return(
    step: str, size: int
) -> None:
    for gone in subsets(terms_of(size).roster):
        world = ProtocolWorld.of(size)
        stopped(world, step, gone)
        with pytest.raises(ProtocolFault, match=f"No reply yet from {', '.join(gone)}"):
            request_next_step(world, step)
        assert not any(run.awaits_answer for run in world.countries.values())
        if len(gone) == 1:
            world.exchange(step, gone[0])
            for later in SET_UP[SET_UP.index(step) + 1 :]:
                world.set_up(later)
            require_return(world)


@pytest.mark.parametrize("size", [3, 4, 5, 6])
def test_the_remaining_countries_begin_another_run_if_they_are_enough(size: int) -> None:
    everyone = terms_of(size).roster
    for gone in subsets(everyone):
        left = tuple(country for country in everyone if country not in gone)
        changes = {"roster": left, "colluding": 1, "honest": 2, "run_id": bytes(16)}
        if len(left) < 3:
            with pytest.raises(Refusal, match="fewer than"):
                ProtocolWorld.ready(size, **changes)
        else:
            require_return(ProtocolWorld.ready(size, **changes))
