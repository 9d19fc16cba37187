"""One independent country among real ones: sums are exact, and lies are refused."""

from collections.abc import Callable, Iterable
from itertools import product

import numpy as np
import pytest

from keys.composite import CompositeSigningKey
from protocols.errors import ProtocolFault, Refusal
from protocols.numerics.mechanism import Rounding, Scope
from protocols.private_sum.coordinator_round import CoordinatorRound, OpenedSum
from protocols.private_sum.coordinator_run import CoordinatorRun
from protocols.private_sum.country_run import CountryRun
from protocols.private_sum.country_view import CountryView
from protocols.proto import round_pb2 as pb
from tests.support.protocol_world import (
    COUNT,
    MODEL,
    NAMES,
    TRAIN,
    ProtocolWorld,
    terms_of,
    versions_of,
)
from tests.vectors.derivations import composite_signer, serialised
from tests.vectors.seat import (
    Alter,
    Lattice,
    each_change,
    page_mechanism,
    seat_of,
    world_with,
)

each_of_four = pytest.mark.parametrize("name", NAMES[:4])


def records_of(countries: Iterable[str], dimension: int = TRAIN.dimension) -> dict[str, Lattice]:
    """Return values of both signs that differ for each country and coordinate."""
    countries_by_name = {}
    for country in countries:
        start = 1000 * (NAMES.index(country) - 2) - 7
        countries_by_name[country] = np.arange(start, start + 3 * dimension, 3, dtype=np.int64)
    return countries_by_name


def require_sum(world: ProtocolWorld, number: int, kind: str, values: dict[str, Lattice]) -> None:
    opened = world.sum(number, kind, values)
    assert isinstance(opened, OpenedSum), opened
    assert opened.countries == tuple(values)
    assert opened.values.tolist() == sum(values.values()).tolist()  # type: ignore[union-attr]
    assert opened.unopenable == ()


def without(*gone: str, size: int = 4) -> list[str]:
    return [country for country in NAMES[:size] if country not in gone]


@each_of_four
def test_sums_are_exact_when_other_countries_or_it_drop_out(name: str) -> None:
    world, _ = world_with(name)
    require_sum(world, 1, "train", records_of(without()))
    for number, gone in enumerate(without(name)[:2], start=2):
        require_sum(world, number, "train", records_of(without(gone)))
    require_sum(world, 4, "train", records_of(without(name)))
    require_sum(world, 9, "count", records_of(without(), COUNT.dimension))


@each_of_four
def test_its_answer_may_be_among_any_three_of_four(name: str) -> None:
    for silent in without():
        world, _ = world_with(name)
        round_, values = world.coordinator.begin_round(1, "train", MODEL), records_of(without())
        for country in values:
            world.contribute(round_, country, values[country])
        round_.close()
        for country in without(silent):
            world.answer(round_, country)
        result = round_.open()
        assert isinstance(result, OpenedSum)
        assert result.values.tolist() == sum(values.values()).tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["AT", "CZ", "FI"])
def test_two_of_six_other_countries_may_drop_out(name: str) -> None:
    world, _ = world_with(name, 6)
    first, second, *_ = without(name, size=6)
    require_sum(world, 1, "train", records_of(without(first, second, size=6)))
    require_sum(world, 2, "train", records_of(without(size=6)))


ZEROS = np.zeros(TRAIN.dimension, np.int64)


def its_contribution() -> tuple[CoordinatorRound, pb.Reply]:
    world, _ = world_with("BE")
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    sent = world.countries["BE"].contribute(round_.contribute_request("BE"), ZEROS, ZEROS)
    return round_, pb.Reply.FromString(sent)


def require_refused(round_: CoordinatorRound, changed: bytes, honest: pb.Reply) -> None:
    with pytest.raises((ProtocolFault, Refusal)):
        round_.take_contribution("BE", changed)
    assert round_.contributed == ()
    round_.take_contribution("BE", serialised(honest))


@each_change
def test_the_coordinator_refuses_replies_that_differ_from_what_it_signed(alter: Alter) -> None:
    round_, honest = its_contribution()
    changed = pb.Reply.FromString(serialised(honest))
    alter(changed)
    require_refused(round_, serialised(changed), honest)


def words_first(words: bytes, rest: bytes) -> bytes:
    return words + rest


def words_twice(words: bytes, rest: bytes) -> bytes:
    return words + rest + words


def no_words(_words: bytes, rest: bytes) -> bytes:
    return rest


@pytest.mark.parametrize("arrange", [words_first, words_twice, no_words])
def test_the_coordinator_requires_the_words_once_and_last(
    arrange: Callable[[bytes, bytes], bytes],
) -> None:
    round_, honest = its_contribution()
    words, rest = pb.Reply(words=honest.words), pb.Reply(contribution=honest.contribution)
    assert serialised(rest) + serialised(words) == serialised(honest)
    require_refused(round_, arrange(serialised(words), serialised(rest)), honest)


COMPOSITE = {
    country: CompositeSigningKey.from_bytes(country.encode() * 32) for country in NAMES[:4]
}
DESK = CompositeSigningKey.from_bytes(b"co" * 32)


def composite_world(name: str) -> ProtocolWorld:
    terms, versions = terms_of(4, honest=2), versions_of(NAMES[:4])
    peers = {country: key.public for country, key in COMPOSITE.items()}
    views = [
        CountryView(country, terms, key, peers, DESK.public, versions)
        for country, key in COMPOSITE.items()
    ]
    runs = {view.country: CountryRun.start(view) for view in views}
    keys = {country: key.raw for country, key in peers.items()} | {"coordinator": DESK.public.raw}
    _, sign = composite_signer(name.encode() * 16, name.encode() * 16)
    runs[name] = seat_of(name, terms, keys=keys, sign=sign)  # type: ignore[assignment]
    coordinator = CoordinatorRun(terms, peers=peers, sign=DESK.sign, versions=versions)
    return ProtocolWorld(terms, coordinator, runs)


def test_it_takes_part_under_composite_signatures() -> None:
    world = composite_world("BE")
    for step in ("bundle", "encapsulate", "confirm"):
        world.set_up(step)
    require_sum(world, 1, "train", records_of(without()))
    require_sum(world, 2, "train", records_of(without("CZ")))
    require_sum(world, 3, "train", records_of(without("BE")))
    require_sum(world, 4, "train", records_of(without()))


MECHANISMS = [
    TRAIN.model_copy(
        update={"dimension": d, "scale": scale, "noise_std": noise, "patients_bound": patients}
        | {"rounding": rounding, "scope": scope}
    )
    for d, scale, noise, patients, rounding, scope in product(
        (1, 4, 1000), (1, 16, 4097), (3, 10**6), (1, 10**6), Rounding, (Scope.SHARED, Scope.DERIVED)
    )
]


def test_the_page_s_sensitivity_and_lane_are_right_for_every_mechanism() -> None:
    lanes = set()
    for mechanism in MECHANISMS:
        converted = page_mechanism(mechanism)
        assert converted.squared_sensitivity == mechanism.squared_sensitivity
        for n in (3, 4, 10, 256):
            assert converted.lane_bits(n) == mechanism.lane_bits(n)
            lanes.add(converted.lane_bits(n))
    assert lanes == {21, 32, 64}
