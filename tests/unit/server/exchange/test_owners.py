"""Who has most of the open connections, against a count of all of them."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from server.exchange.owners import Kind, Owners

KIND_OF = {owner: list(Kind)[number % 3] for number, owner in enumerate("abcdefg")}
Steps = st.lists(st.tuples(st.sampled_from(sorted(KIND_OF)), st.integers(0, 3)), max_size=60)


@given(Steps)
def test_the_largest_owner_is_one_that_nobody_exceeds(steps: list[tuple[str, int]]) -> None:
    owners, open_ = Owners(), dict[int, str]()
    for number, (owner, action) in enumerate(steps):
        if action or not open_:
            owners.add(owner, KIND_OF[owner], number)
            open_[number] = owner
        else:
            first, whose = next(iter(open_.items()))
            owners.remove(whose, KIND_OF[whose], first)
            del open_[first]
        counts = Counter(open_.values())
        for kinds in ((Kind.STRANGER,), (Kind.STRANGER, Kind.PASSING), tuple(Kind)):
            fitting = {own: count for own, count in counts.items() if KIND_OF[own] in kinds}
            largest = owners.largest(*kinds)
            assert (largest is None) == (not fitting)
            assert largest is None or fitting[largest] == max(fitting.values())
    for owner in KIND_OF:
        assert owners.of(owner) == tuple(n for n, whose in open_.items() if whose == owner)
        assert owners.count(owner) == len(owners.of(owner))


def test_of_several_the_first_to_have_so_many_comes_first() -> None:
    owners = Owners()
    for number, owner in enumerate("baab"):
        owners.add(owner, Kind.STRANGER, number)
    assert owners.largest(Kind.STRANGER) == "a"
    owners.remove("a", Kind.STRANGER, 1)
    assert owners.largest(Kind.STRANGER) == "b"
    assert owners.largest(Kind.MEMBER) is None
