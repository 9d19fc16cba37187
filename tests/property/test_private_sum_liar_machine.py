"""The private sum with a coordinator that breaks the protocol, helped by up to c countries.

Hypothesis plays this liar. It shows countries different models, and asks each of them for any set,
with signatures that it has seen or that its helpers make, repeatedly and late. After each step the
test searches for sums that the liar could compute.
"""

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from protocols.errors import ProtocolFault
from protocols.private_sum.context import RunTerms
from protocols.private_sum.coordinator_round import CoordinatorRound
from protocols.private_sum.messages import read_request
from protocols.proto.round_pb2 import Assent, Reply, Signed
from tests.support.durable_parties import (
    ENDLESS,
    UNHURRIED,
    DurableCountry,
    shapes,
    total,
)
from tests.support.examples import examples
from tests.support.lying_coordinator import LyingCoordinator, assent
from tests.support.protocol_world import ProtocolWorld, view_of

Chosen = tuple[str, ...]
RoundKey = tuple[int, bytes]
"""A round number and a model."""

MODELS = (b"one model", b"another")
indices = st.integers(0, 5)
groups = st.sets(indices, max_size=4)
missing = st.sets(indices, min_size=1, max_size=2)
outsiders = st.lists(missing | missing | st.just(frozenset[int]()), min_size=1, max_size=3)
tellings = st.just([0] * 6) | st.lists(st.integers(0, 2), min_size=6, max_size=6)
shifts = st.sampled_from([0, 0, 1])
ages = st.sampled_from([0, 0, 0, 1])
"""How many rounds back, where 1 is the latest round."""
models = st.sampled_from([*MODELS, MODELS[0]])


class Lying(RuleBasedStateMachine):
    """`honest` are countries' stored states; `rounds` are the liar's rounds, by number and model.

    The liar prepares several `sets`; `named_sets` says which of them it names to each country.
    """

    @initialize(terms=shapes(), order=st.permutations(range(6)), seed=st.integers(0, 2**32))
    def begin(self, terms: RunTerms, order: list[int], seed: int) -> None:
        self.terms, self.roster = terms, terms.roster
        world = ProtocolWorld.ready(
            len(terms.roster), colluding=terms.colluding, honest=terms.honest, mechanisms=ENDLESS
        )
        self.helpers = [self.roster[index] for index in order if index < len(self.roster)]
        del self.helpers[terms.colluding :]
        self.honest = {
            country: DurableCountry(
                run, view_of(country, world.terms), seed + index, journalled=bool(seed % 2)
            )
            for index, (country, run) in enumerate(world.countries.items())
            if country not in self.helpers
        }
        self.liar = LyingCoordinator(world, self.helpers)
        self.rounds: dict[RoundKey, CoordinatorRound] = {}
        self.signed: dict[tuple[bytes, Chosen], dict[str, Signed]] = defaultdict(dict)
        self.asked: list[tuple[str, bytes]] = []
        self.opened: dict[RoundKey, tuple[Chosen, ...]] = {}
        self.latest = 2
        self.plot([{0}], [0] * 6)

    def without(self, chosen_indices: Iterable[int]) -> Chosen:
        gone = {self.roster[index % len(self.roster)] for index in chosen_indices}
        return tuple(country for country in self.roster if country not in gone)

    def round(self, number: int, model: bytes) -> CoordinatorRound:
        """Return a round to which each helper has contributed."""
        if (number, model) not in self.rounds:
            self.rounds[number, model] = self.liar.begin(number, model)
            for country in self.helpers:
                self.liar.contribute(self.rounds[number, model], country)
        return self.rounds[number, model]

    def tell(self, country: str, request: bytes, *, dies: bool = False) -> None:
        """Pass a request on to an honest country, and use the reply if there is one."""
        self.asked.append((country, request))
        reply = None
        with suppress(ProtocolFault):
            reply = self.honest[country].receive(request, dies=dies)
        if reply:
            self.opened.clear()
            self.liar.adversary_state.record(reply, read_request(request).body.answer.countries)
            signed = Reply.FromString(reply).assent
            chosen = tuple(Assent.FromString(signed.body).countries)
            self.signed[signed.context, chosen][country] = signed

    # ---- the liar's actions ------------------------------------------------------------------

    @rule(outside=outsiders, named_sets=tellings)
    def plot(self, outside: list[set[int]], named_sets: list[int]) -> None:
        self.sets, self.told = (
            [self.without(chosen_indices) for chosen_indices in outside],
            named_sets,
        )

    @rule()
    def plot_ring(self) -> None:
        """Name to each honest country the set without the country that follows it."""
        honest = list(self.honest)
        following = dict(zip(honest, honest[1:] + honest[:1], strict=True))
        gone = [following.get(country) for country in self.roster]
        self.sets = [
            tuple(country for country in self.roster if country != other) for other in gone
        ]
        self.told = list(range(6))

    def set_for(self, country: str, shift: int) -> Chosen:
        return self.sets[(self.told[self.roster.index(country)] + shift) % len(self.sets)]

    @rule(age=ages, model=models, but=groups)
    def collect(self, age: int, model: bytes, but: set[int]) -> None:
        """Ask all but some countries to contribute on a model."""
        round_ = self.round(self.latest - age, model)
        for country in set(self.without(but)) & set(self.honest):
            self.tell(country, round_.contribute_request(country))

    @rule(age=ages, model=models, but=groups, shift=shifts)
    def divide(self, age: int, model: bytes, but: set[int], shift: int) -> None:
        """Ask all but some countries for signatures, each on the set named to it."""
        round_ = self.round(self.latest - age, model)
        for country in set(self.without(but)) & set(self.honest):
            self.tell(country, self.liar.agree_request(round_, self.set_for(country, shift)))

    @rule(age=ages, model=models, but=groups, shift=shifts, mixed=st.booleans())
    def demand(self, age: int, model: bytes, but: set[int], shift: int, mixed: bool) -> None:
        """Ask all but some countries to answer for the set that was named to each."""
        round_ = self.round(self.latest - age, model)
        for country in set(self.without(but)) & set(self.honest):
            chosen = self.set_for(country, shift)
            assents = self.shown(round_, chosen, mixed)
            self.tell(country, self.liar.answer_request(round_, country, chosen, assents))

    @rule(
        outside=outsiders,
        named_sets=tellings,
        ring=st.sampled_from([False, False, True]),
        phases_asked=st.sampled_from([1, 1, 0, 2]),
    )
    def carry_through(
        self, outside: list[set[int]], named_sets: list[int], ring: bool, phases_asked: int
    ) -> None:
        """Play the next round: ask no country to agree, or each once, or each on two sets."""
        self.latest += 1
        self.plot(outside, named_sets)
        if ring:
            self.plot_ring()
        self.collect(0, MODELS[0], set())
        for shift in range(phases_asked):
            self.divide(0, MODELS[0], set(), shift)
        self.demand(0, MODELS[0], set(), max(0, phases_asked - 1), False)

    @rule(index=st.integers(0, 200), dies=st.booleans())
    def repeat(self, index: int, dies: bool) -> None:
        """Repeat an earlier request; the country may die before its reply is stored."""
        if self.asked:
            country, request = self.asked[-1 - index % len(self.asked)]
            self.tell(country, request, dies=dies)

    @rule(index=indices)
    def restart(self, index: int) -> None:
        for country in set(self.honest) - set(self.without({index})):
            self.honest[country].restart()

    def shown(self, round_: CoordinatorRound, chosen: Chosen, mixed: bool) -> list[Signed]:
        """Return all signatures on a set; with `mixed`, also those on another set."""
        if chosen == self.roster:
            return []
        context, assents = round_.terms.context, dict[str, Signed]()
        for other in (*self.sets, chosen) if mixed else (chosen,):
            assents |= self.signed[context, other]
        assents |= {country: assent(round_, country, chosen) for country in self.helpers}
        return [assents[country] for country in chosen if country in assents]

    # ---- invariants --------------------------------------------------------------------------

    @invariant()
    def each_round_opens_at_most_one_sum_and_over_enough_countries(self) -> None:
        opened_sets: dict[int, list[Chosen]] = defaultdict(list)
        for (number, model), round_ in getattr(self, "rounds", {}).items():
            opened_sets[number] += self.openings((number, model), round_)
        for sets in opened_sets.values():
            assert len(sets) <= 1, "two sums of one round can be opened"
            for countries in sets:
                assert len(countries) >= self.terms.honest, "a sum is over too few countries"
                event("roster" if len(countries) == len(self.honest) else "smaller")

    def openings(self, round_key: RoundKey, round_: CoordinatorRound) -> tuple[Chosen, ...]:
        """Return the sets whose sums the liar can compute; each sum is computed."""
        if round_key not in self.opened:
            openings = self.liar.adversary_state.openings(round_.terms)
            assert openings.rank == len(openings.minimal)
            self.opened[round_key] = openings.minimal
            for chosen in openings.minimal:
                given = {country: self.honest[country] for country in chosen}
                value = self.liar.adversary_state.value(round_.terms, chosen)
                assert value.tolist() == total(given, round_key[0])
        return self.opened[round_key]


Lying.TestCase.settings = settings(UNHURRIED, max_examples=examples(100), stateful_step_count=15)
TestLying = pytest.mark.timeout(600)(Lying.TestCase)


class Longer(Lying):
    """The same, with more examples."""


Longer.TestCase.settings = settings(UNHURRIED, max_examples=500, stateful_step_count=40)
TestLonger = pytest.mark.slow(pytest.mark.timeout(900)(Longer.TestCase))
