"""Search exhaustively: no sequence of signatures and answers opens a sum over too few countries.

The search covers every choice for up to five countries: every c and h, every number of honest
countries that contribute (and so every split over different models), and colluders who sign
anything. It asks a real country for each of its replies (`tests.support.exhaustive_search`). The
sets that open are compared with what a liar has after the same sequence, and with the values that
were contributed.
"""

import random
from functools import cache

import pytest

from protocols.private_sum import country_round
from protocols.private_sum.context import RunTerms
from tests.support.exhaustive_search import (
    SearchResult,
    Setting,
    Table,
    courses,
    opens,
    play,
    search,
)

SIZES = [(n, c, h) for n in range(2, 6) for c in range(n - 1) for h in range(2, n - c + 1)]
LARGE = [(6, c, h) for c in range(1, 5) for h in range(2, 7 - c)]
SAMPLES = 12


@cache
def table_of(size: int, colluding: int, honest: int, present: int) -> Table:
    """Return the replies of the real countries, computed once for all tests."""
    return Table(Setting(size, colluding, honest, present))


@cache
def search_of(size: int, colluding: int, honest: int, present: int) -> SearchResult:
    return search(table_of(size, colluding, honest, present))


def results_by_present(size: int, colluding: int, honest: int) -> dict[int, SearchResult]:
    """Return the result of a search, by the number of honest countries that contribute."""
    there = range(1, size - colluding + 1)
    return {present: search_of(size, colluding, honest, present) for present in there}


def require_safe(size: int, colluding: int, honest: int) -> None:
    """Require h honest and h + c countries at least in each set, and one set at most."""
    by_present = results_by_present(size, colluding, honest)
    openable = [present for present, result in by_present.items() if result.sets]
    for result in by_present.values():
        assert all(len(countries) >= honest for countries in result.sets)
        assert result.together <= 1
    assert 2 * min(openable) > size - colluding
    everyone = by_present[size - colluding].sets
    assert max(map(len, everyone)) == size - colluding


@pytest.mark.parametrize(("size", "colluding", "honest"), SIZES)
def test_no_set_that_is_too_small_and_no_two_sets_open(
    size: int, colluding: int, honest: int
) -> None:
    """Two models make two rounds; each needs more than half of the honest countries."""
    require_safe(size, colluding, honest)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "colluding", "honest"), LARGE)
def test_no_set_that_is_too_small_opens_among_six(size: int, colluding: int, honest: int) -> None:
    require_safe(size, colluding, honest)


@pytest.mark.parametrize(
    ("size", "colluding", "sizes"),
    [(3, 0, {2, 3}), (4, 1, {2, 3}), (4, 0, {3, 4}), (5, 2, {2, 3}), (5, 0, {3, 4, 5})],
)
def test_smaller_sets_open_when_they_are_agreed_on(
    size: int, colluding: int, sizes: set[int]
) -> None:
    result = search_of(size, colluding, 2, size - colluding)
    assert set(map(len, result.sets)) == sizes


@pytest.mark.parametrize(("size", "colluding"), [(3, 0), (4, 1), (5, 2)])
def test_without_the_agree_check_the_victim_opens_alone(
    size: int, colluding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(country_round, "require_agreed", lambda *_: None)
    setting = Setting(size, colluding, 2, size - colluding)
    result = search(Table(setting))
    assert ("AT",) in result.sets
    assert result.smallest == 1
    assert ("AT",) in play(setting, result.worst)


def below(terms: RunTerms) -> int:
    return (len(terms.roster) + terms.colluding) // 2


@pytest.mark.parametrize(
    ("size", "colluding", "victims"),
    [(3, 0, 1), (4, 0, 2), (4, 1, 1), (5, 1, 2), (5, 2, 1)],
)
def test_one_below_the_threshold_opens_too_little_or_too_much(
    size: int, colluding: int, victims: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a set smaller than the roster may open at all, a threshold lower by one is unsafe.

    An even n + c lets two different sets open; an odd one even a country alone.
    """
    monkeypatch.setattr(RunTerms, "threshold", property(below))
    setting = Setting(size, colluding, 2, size - colluding)
    result = search(Table(setting))
    assert result.smallest == victims
    assert result.together > 1
    assert len(play(setting, result.worst)) > 1


@pytest.mark.parametrize(("size", "colluding"), [(4, 0), (4, 1), (5, 1), (5, 2)])
def test_the_search_agrees_with_what_a_liar_can_open(size: int, colluding: int) -> None:
    choose = random.Random(size + colluding)  # noqa: S311
    for present in range(2, size - colluding + 1):
        setting = Setting(size, colluding, 2, present)
        table = table_of(size, colluding, 2, present)
        for course in choose.sample(every := list(courses(table)), min(SAMPLES, len(every))):
            assert list(play(setting, course)) == opens(table, course)


@pytest.mark.parametrize(("size", "colluding"), [(4, 0), (4, 1), (5, 2)])
def test_every_country_replies_in_the_same_way(size: int, colluding: int) -> None:
    setting = Setting(size, colluding, 2, size - colluding)
    first = table_of(size, colluding, 2, size - colluding)
    for index, country in enumerate(first.contributors[1:], 1):
        table = Table(setting, asking=index)
        assert set(table.paths) == set(first.paths_of(country))
        for path in table.paths:
            for signers in table.sets:
                one, other = (t.does(country, path[:-1], path[-1], signers) for t in (table, first))
                assert one == other


@pytest.mark.parametrize("size", [4, 5])
def test_more_signatures_never_open_less(size: int) -> None:
    """The search shows a country every existing signature; with fewer it would answer less."""
    table = table_of(size, 0, 2, size)
    for path in table.paths:
        answer, before = path[-1], path[:-1]
        larger_sets = {s for s in table.sets if table.does("AT", before, answer, s)}
        inside = {s for s in table.sets if set(s) <= set(answer[1])}
        assert all(
            more in larger_sets for s in larger_sets for more in inside if set(s) <= set(more)
        )
