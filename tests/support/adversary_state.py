"""Compute what an adversary can open who sees every reply and has some countries' states.

Everything that the adversary knows is a vector over unknowns: a country's contribution x_i, its own
mask PRG(b_i), and the mask PRG(s_ij) of each pair. Masks of different keys are independent and
uniform. So the adversary learns exactly those combinations of contributions that the known vectors
span without any mask. They are found by elimination over a prime field: each vector has entries 0,
1 and −1 and is a row of the incidence matrix of a graph, so that the rank is the same in every
field and modulo 2^64.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from protocols.errors import ProtocolFault
from protocols.numerics.packing import unpack
from protocols.private_sum import ratchet, shares
from protocols.private_sum.context import RoundTerms, RunTerms
from protocols.private_sum.contribution import open_share, read_head, seed_key
from protocols.private_sum.country_state import CountryState
from protocols.private_sum.masking import KEY_BYTES, WORDS_DTYPE, Masker
from protocols.private_sum.messages import SEALED_BYTES, SHARE_BYTES, split_parts
from protocols.private_sum.setup import ordered
from protocols.proto.round_pb2 import Answer, Reply
from protocols.wire.signed_message import ROSTER

FIELD = 2**61 - 1
HASH = 32

Unknown = tuple[str, ...]
"""("x", country), ("b", country) or ("s", country, country)."""
Vector = dict[Unknown, int]
Pair = tuple[str, str]


@dataclass(frozen=True)
class Openings:
    """Which combinations of honest contributions are known.

    `minimal` are the smallest sets whose sum is known, in order; `rank` counts the independent
    combinations. It is the number of sets if these do not overlap.
    """

    minimal: tuple[tuple[str, ...], ...]
    rank: int


@dataclass(frozen=True)
class Revealed:
    """What an answer reveals: shares by owner, and keys of masks by country outside its set."""

    shares: Mapping[str, bytes]
    masks: Mapping[str, bytes]


class AdversaryState:
    """Replies that were seen and states that were stolen; `colluders` are not attacked."""

    def __init__(self, terms: RunTerms, colluders: Sequence[str] = ()) -> None:
        self._terms = terms
        self._honest = [one for one in terms.roster if one not in colluders]
        self._contributions: dict[bytes, dict[str, Reply]] = defaultdict(dict)
        self._answers: dict[bytes, dict[str, list[Revealed]]] = defaultdict(dict)
        self._states: list[tuple[str, CountryState]] = []

    def record(self, reply: bytes, chosen: Sequence[str] = ()) -> None:
        """Add a country's reply; replies of set-up and assents contain no key, and add nothing.

        An answer does not name the set that it was asked for: that is `chosen`.
        """
        message = Reply.FromString(reply)
        if message.HasField("contribution"):
            head = message.contribution.head
            self._contributions[head.context].setdefault(head.sender, message)
        if message.HasField("answer"):
            answer, revealed = message.answer, Answer.FromString(message.answer.body)
            content = self._revealed_by(revealed, chosen)
            self._answers[answer.context].setdefault(answer.sender, []).append(content)

    def take(self, country: str, state: bytes) -> None:
        """Add a country's stored state, from a colluder or a thief."""
        self._states.append((country, CountryState.model_validate_json(state)))

    def contributions(self, context: bytes) -> Mapping[str, Reply]:
        """Return the contributions to a round, by country."""
        return self._contributions[context]

    def sealed(self, context: bytes, owner: str, holder: str) -> bytes:
        """Return the share that an owner sealed for another country of the roster."""
        others = [member for member in self._terms.roster if member != owner]
        sealed = self._contributions[context][owner].contribution.shares
        return split_parts(sealed, others, SEALED_BYTES)[holder]

    def contributors(self) -> set[str]:
        """Return the countries that have contributed to any round."""
        return {country for replies in self._contributions.values() for country in replies}

    def openings(self, round_terms: RoundTerms) -> Openings:
        """Return what is known about the honest contributions of a round."""
        contributors = [
            member for member in self._honest if member in self._contributions[round_terms.context]
        ]
        columns = [("x", member) for member in contributors]
        known = _without_masks(list(self._vectors(round_terms, contributors)), columns)
        return Openings(_smallest(known, contributors), len(known))

    def value(self, round_terms: RoundTerms, countries: Sequence[str]) -> NDArray[np.int64]:
        """Open the sum of values over `countries`, (d,) lattice units, with the known keys.

        Raises KeyError if a key that it needs is not known.
        """
        masker, words = Masker(round_terms.words), np.zeros(round_terms.words, np.uint64)
        seeds, pairs = self._seeds(round_terms), self._pairs(round_terms)
        for member in countries:
            words += np.frombuffer(
                self._contributions[round_terms.context][member].words, WORDS_DTYPE
            )
            masker.subtract(seed_key(round_terms, member, seeds[member]), words)
            for other in set(self._terms.roster) - set(countries):
                remove = masker.subtract if other > member else masker.add
                remove(pairs[ordered(member, other)], words)
        values = unpack(words, round_terms.lane_bits)
        assert not values[round_terms.mechanism.dimension :].any()
        return values[: round_terms.mechanism.dimension]

    def _revealed_by(self, answer: Answer, chosen: Sequence[str]) -> Revealed:
        outside = [member for member in self._terms.roster if member not in chosen]
        parts = split_parts(answer.shares, chosen, SHARE_BYTES)
        shares_by_owner = {
            member: share for member, share in parts.items() if member not in answer.unopenable
        }
        return Revealed(shares_by_owner, split_parts(answer.masks, outside, KEY_BYTES))

    def _vectors(self, round_terms: RoundTerms, contributors: Sequence[str]) -> Iterator[Vector]:
        for member in contributors:
            masks: Vector = {
                ("s", *ordered(member, other)): 1 if other > member else -1
                for other in self._terms.roster
                if other != member
            }
            yield {("x", member): 1, ("b", member): 1, **masks}
        for member in self._seeds(round_terms):
            yield {("b", member): 1}
        for pair in self._pairs(round_terms):
            yield {("s", *pair): 1}

    def _pairs(self, round_terms: RoundTerms) -> dict[Pair, bytes]:
        """Return the keys of pairs' masks that were revealed or are derived from a state."""
        keys: dict[Pair, bytes] = {}
        for country, answers in self._answers[round_terms.context].items():
            for answer in answers:
                keys |= {ordered(country, member): key for member, key in answer.masks.items()}
        for country, state in self._states:
            for peer, link in self._links(country, state, round_terms).items():
                keys[ordered(country, peer)] = ratchet.mask_key(
                    link, round_terms.context, country, peer
                )
            if state.open_round and state.open_round.context == round_terms.context:
                masks = state.open_round.masks
                keys |= {ordered(country, peer): key for peer, key in masks.items()}
        return keys

    def _seeds(self, round_terms: RoundTerms) -> dict[str, bytes]:
        """Return the seeds that the known shares give, whatever threshold the terms state."""
        seeds = {}
        for owner, reply in self._contributions[round_terms.context].items():
            seed = self._seed(round_terms, owner, reply)
            if seed is not None:
                seeds[owner] = seed
        return seeds

    def _seed(self, round_terms: RoundTerms, owner: str, reply: Reply) -> bytes | None:
        known = dict(self._shares(round_terms, owner, reply))
        points = {}
        for holder, share in known.items():
            index = self._terms.roster.index(holder)
            signed = reply.contribution.commitments[HASH * index : HASH * (index + 1)]
            if shares.commit(round_terms.context, owner, holder, share) == signed:
                points[index + 1] = share
        try:
            seed = shares.combine(points)
        except ProtocolFault:
            return None
        signed = read_head(reply.contribution.head.body).seed_commitment
        return seed if shares.commit(round_terms.context, owner, ROSTER, seed) == signed else None

    def _shares(
        self, round_terms: RoundTerms, owner: str, reply: Reply
    ) -> Iterator[tuple[str, bytes]]:
        """Yield shares of the owner's seed by holder: revealed, or unsealed by a state's keys."""
        for holder, answers in self._answers[round_terms.context].items():
            for answer in answers:
                if owner in answer.shares:
                    yield holder, answer.shares[owner]
        commitment = read_head(reply.contribution.head.body).seed_commitment
        for holder, state in self._states:
            if holder == owner and state.open_round and _is_of(state, round_terms):
                yield holder, state.open_round.own_share
            key = self._seals(holder, state, round_terms).get(owner)
            share = key and open_share(
                round_terms.context,
                key,
                owner,
                holder,
                self.sealed(round_terms.context, owner, holder),
                commitment,
            )
            if share:
                yield holder, share

    def _seals(
        self, country: str, state: CountryState, round_terms: RoundTerms
    ) -> dict[str, bytes]:
        if state.open_round and _is_of(state, round_terms):
            return state.open_round.seals
        return {
            peer: ratchet.sealing_key(link, round_terms.context, peer, country)
            for peer, link in self._links(country, state, round_terms).items()
        }

    def _links(
        self, country: str, state: CountryState, round_terms: RoundTerms
    ) -> dict[str, bytes]:
        """Return the pair chains at a later round than this state's; none for an earlier one."""
        ahead = round_terms.round_number - state.round_number - 1
        return {
            peer: ratchet.advance(link, state.transcript, country, peer, ahead)
            for peer, link in (state.links.items() if ahead >= 0 else ())
        }


def _is_of(state: CountryState, round_terms: RoundTerms) -> bool:
    return state.open_round is not None and state.open_round.context == round_terms.context


def _without_masks(rows: list[Vector], columns: Sequence[Unknown]) -> list[Vector]:
    """Return a basis of the combinations of `rows` that contain nothing outside `columns`."""
    masks = {unknown for row in rows for unknown in row} - set(columns)
    for mask in sorted(masks):
        pivot = next((row for row in rows if row.get(mask)), None)
        if pivot is not None:
            rows = [_reduced(row, pivot, mask) for row in rows if row is not pivot]
    return _independent(rows, columns)


def _independent(rows: list[Vector], columns: Sequence[Unknown]) -> list[Vector]:
    basis = []
    for column in columns:
        pivot = next((row for row in rows if row.get(column)), None)
        if pivot is not None:
            basis.append(pivot)
            rows = [_reduced(row, pivot, column) for row in rows if row is not pivot]
    return basis


def _reduced(row: Vector, pivot: Vector, column: Unknown) -> Vector:
    """Return the row without `column`, after subtraction of a multiple of the pivot."""
    if not row.get(column):
        return row
    factor = row[column] * pow(pivot[column], -1, FIELD)
    mixed = {u: (row.get(u, 0) - factor * pivot.get(u, 0)) % FIELD for u in row.keys() | pivot}
    return {unknown: value for unknown, value in mixed.items() if value}


def _smallest(basis: list[Vector], contributors: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    smallest: list[tuple[str, ...]] = []
    for size in range(1, len(contributors) + 1):
        for chosen in combinations(contributors, size):
            wanted: Vector = {("x", member): 1 for member in chosen}
            inside = any(set(smaller) <= set(chosen) for smaller in smallest)
            if not inside and _spans(basis, wanted):
                smallest.append(chosen)
    return tuple(smallest)


def _spans(basis: list[Vector], wanted: Vector) -> bool:
    for pivot in basis:
        wanted = _reduced(wanted, pivot, min(pivot))
    return not wanted
