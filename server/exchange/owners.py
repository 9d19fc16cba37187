"""Knows whose the open connections are, and who has most of them, in constant time.

A flood makes the exchange ask this for each connection, so no step may take longer the more
connections there are.
"""

from collections import OrderedDict, defaultdict
from enum import Enum


class Kind(Enum):
    """What is known of an owner of connections."""

    STRANGER = "stranger"
    """An address from which no member called, or a guest."""
    PASSING = "passing"
    """A known address before its call, or a certificate that is not valid any more."""
    MEMBER = "member"


class Owners:
    """The numbers of the connections of each owner. An owner has one kind."""

    def __init__(self) -> None:
        self._numbers: defaultdict[str, OrderedDict[int, None]] = defaultdict(OrderedDict)
        self._ranks = {kind: _Rank() for kind in Kind}

    def add(self, owner: str, kind: Kind, number: int) -> None:
        """Add a connection."""
        numbers = self._numbers[owner]
        numbers[number] = None
        self._ranks[kind].move(owner, len(numbers) - 1, len(numbers))

    def remove(self, owner: str, kind: Kind, number: int) -> None:
        """Remove a connection that was added with the same values."""
        numbers = self._numbers[owner]
        del numbers[number]
        self._ranks[kind].move(owner, len(numbers) + 1, len(numbers))
        if not numbers:
            del self._numbers[owner]

    def of(self, owner: str) -> tuple[int, ...]:
        """Return the connections of an owner, in the order in which they were added."""
        return tuple(self._numbers.get(owner, ()))

    def count(self, owner: str) -> int:
        """Return how many connections an owner has."""
        return len(self._numbers.get(owner, ()))

    def largest(self, *kinds: Kind) -> str | None:
        """Return who has most connections, of the owners of these kinds; None if there is none."""
        rank = max((self._ranks[kind] for kind in kinds), key=lambda rank: rank.most)
        return rank.first()


class _Rank:
    """Owners by how many connections they have."""

    def __init__(self) -> None:
        self._by_count: defaultdict[int, OrderedDict[str, None]] = defaultdict(OrderedDict)
        self.most = 0

    def move(self, owner: str, before: int, after: int) -> None:
        """Move an owner by one, up or down; who has none is not kept."""
        if before:
            del self._by_count[before][owner]
        if after:
            self._by_count[after][owner] = None
        if after > self.most or not self._by_count[self.most]:
            self.most = after

    def first(self) -> str | None:
        """Return who was the first to have as many as nobody exceeds."""
        return next(iter(self._by_count[self.most]), None)
