"""The private sum over a network that loses, repeats and reorders, with processes that die.

Hypothesis schedules all deliveries. Messages are bytes that arrive in any order, repeatedly or
never, also after the round was closed, after restarts and in later rounds. All parties follow the
protocol here; test_private_sum_liar_machine.py has a coordinator that does not.
"""

from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocols.errors import ProtocolFault
from protocols.private_sum.context import RunTerms
from protocols.private_sum.coordinator_round import OpenedSum
from protocols.private_sum.country_run import CountryRun
from tests.support.durable_parties import (
    SET_UP,
    UNHURRIED,
    DurableCoordinator,
    DurableCountry,
    shapes,
    total,
)
from tests.support.examples import examples
from tests.support.protocol_world import ZEROS, ProtocolWorld, view_of

STEPS = ("contribute", "agree", "answer")
picks = st.lists(st.integers(0, 40), min_size=1, max_size=12)
indices = st.integers(0, 5)
few = st.sets(indices, max_size=2) | st.sets(indices, min_size=1, max_size=1)
"""Countries that are left out, by their positions in the roster."""

Letter = tuple[str, bool, bytes]
"""The country, whether the message goes to it or comes from it, and its content."""


class Lossy(RuleBasedStateMachine):
    """`wire` holds what may still arrive, `sent` all that was sent, `opened` the sums by round."""

    @initialize(
        terms=shapes(), seed=st.integers(0, 2**32), journalled=st.booleans(), ready=st.booleans()
    )
    def begin(self, terms: RunTerms, seed: int, journalled: bool, ready: bool) -> None:
        self.lead, self.stations = DurableCoordinator(terms), {}
        for index, country in enumerate(terms.roster):
            view = view_of(country, terms)
            station = DurableCountry(
                CountryRun.start(view), view, seed + index, journalled=journalled
            )
            self.stations[country] = station
        self.wire: list[Letter] = []
        self.sent: list[Letter] = []
        self.opened: dict[int, OpenedSum] = {}
        if ready or not journalled:
            self.complete_set_up()

    @property
    def roster(self) -> tuple[str, ...]:
        return self.lead.terms.roster

    def without(self, left_out: Iterable[int]) -> tuple[str, ...]:
        gone = {self.roster[index % len(self.roster)] for index in left_out}
        return tuple(country for country in self.roster if country not in gone)

    # ---- the network -------------------------------------------------------------------------

    def post(self, step: str, countries: Iterable[str]) -> None:
        """Send the requests that the coordinator can make now."""
        for country in countries:
            with suppress(ProtocolFault):
                self.send((country, True, self.lead.ask(step, country)))

    def send(self, letter: Letter) -> None:
        self.wire.append(letter)
        self.sent.append(letter)

    def deliver(self, letter: Letter, *, dies: bool = False) -> None:
        country, outward, content = letter
        with suppress(ProtocolFault):
            if not outward:
                self.give_to_coordinator(country, content)
            elif reply := self.stations[country].receive(content, dies=dies):
                self.send((country, False, reply))

    def give_to_coordinator(self, country: str, reply: bytes) -> None:
        """Give the coordinator a reply; a refused reply must not change the round."""
        before = self.known()
        try:
            self.lead.receive(country, reply)
        except ProtocolFault:
            assert self.known() == before, "a refused reply changed the round"
            raise

    def known(self) -> tuple[object, ...]:
        now = self.lead.round
        if now is None:
            return ()
        replies_before = now.contributed, now.agreed, now.answered, now._chosen
        return *replies_before, now._sum.tobytes()

    def carry_all(self) -> None:
        while self.wire:
            self.deliver(self.wire.pop(0))

    @rule(order=picks)
    def carry(self, order: list[int]) -> None:
        for index in order:
            if self.wire:
                self.deliver(self.wire.pop(index % len(self.wire)))

    @rule(left_out=few)
    def carry_but(self, left_out: set[int]) -> None:
        """Deliver all messages, newest first, except those to and from some countries."""
        reached = self.without(left_out)
        while carried := [letter for letter in self.wire if letter[0] in reached]:
            self.wire.remove(carried[-1])
            self.deliver(carried[-1])

    @rule(order=picks)
    def lose(self, order: list[int]) -> None:
        for index in order:
            if self.wire:
                self.wire.pop(index % len(self.wire))

    @rule(order=st.lists(st.integers(-30, 1000), min_size=1, max_size=12))
    def repeat(self, order: list[int]) -> None:
        """Deliver the latest message again (counted from the end), and the oldest."""
        for index in order:
            if self.sent:
                self.deliver(self.sent[index % len(self.sent)])

    # ---- crashes -----------------------------------------------------------------------------

    @rule(index=indices)
    def restart(self, index: int) -> None:
        self.stations[self.roster[index % len(self.roster)]].restart()

    @rule(index=st.integers(0, 40))
    def die_before_it_is_durable(self, index: int) -> None:
        if self.wire:
            self.deliver(self.wire.pop(index % len(self.wire)), dies=True)

    @rule(resume=st.booleans(), forgetful=st.booleans())
    def restart_coordinator(self, resume: bool, forgetful: bool) -> None:
        self.lead.restart(resume=resume, forgetful=forgetful)

    # ---- the coordinator's actions -----------------------------------------------------------

    @precondition(lambda self: not self.lead.ready)
    @rule(step=st.sampled_from(list(SET_UP)), left_out=few)
    def ask_in_set_up(self, step: str, left_out: set[int]) -> None:
        self.post(step, self.without(left_out))

    @precondition(lambda self: self.lead.ready)
    @rule(step=st.integers(1, 3), kind=st.sampled_from(["train", "count"]), left_out=few)
    def next_round(self, step: int, kind: str, left_out: set[int]) -> None:
        """Begin a round and ask all but a few countries to contribute."""
        self.lead.begin(self.lead.number + step, kind)
        self.post("contribute", self.without(left_out))

    @precondition(lambda self: self.lead.round is not None)
    @rule(step=st.sampled_from(STEPS), left_out=few)
    def ask(self, step: str, left_out: set[int]) -> None:
        """Make requests; ask for signatures only if they can be of use."""
        assert self.lead.round is not None
        if step == "agree":
            self.lead.close()
        if step != "agree" or self.lead.round.openable:
            self.post(step, self.without(left_out))

    @precondition(lambda self: self.lead.round is not None)
    @rule(left_out=few, steps=st.sampled_from([STEPS, STEPS[1:], STEPS[:2]]))
    def conduct(self, left_out: set[int], steps: tuple[str, ...]) -> None:
        """Run steps of the round; messages to and from a few countries are delayed."""
        for step in steps:
            self.ask(step, set())
            self.carry_but(left_out)

    @precondition(lambda self: self.lead.ready)
    @rule(kind=st.sampled_from(["train", "count"]), left_out=few)
    def whole_round(self, kind: str, left_out: set[int]) -> None:
        """Run the next round without a few countries."""
        self.next_round(1, kind, {*range(6)})
        self.conduct(left_out, STEPS)

    # ---- invariants --------------------------------------------------------------------------

    @invariant()
    def what_opens_is_the_sum(self) -> None:
        now = getattr(self, "lead", None) and self.lead.round
        if not now:
            return
        result = now.open()
        assert isinstance(result, OpenedSum) == self.must_be_open()
        if not isinstance(result, OpenedSum):
            return
        chosen = {country: self.stations[country] for country in result.countries}
        assert set(chosen) <= set(self.roster)
        assert len(chosen) >= max(self.lead.terms.minimum_countries, self.lead.terms.threshold)
        assert result.values.tolist() == total(chosen, self.lead.number)
        assert result.unopenable == ()
        assert result.variance == len(chosen) * now.terms.mechanism.noise_std**2
        before = self.opened.setdefault(self.lead.number, result)
        assert before.countries == result.countries, "two sets of one round opened"
        event("smaller" if now.smaller else "roster")

    def must_be_open(self) -> bool:
        """Return whether the round must open by now; otherwise it must not open."""
        now, terms = self.lead.round, self.lead.terms
        assert now is not None
        chosen = now.contributed if now._chosen is None else now._chosen
        if len(chosen) < terms.smallest_set or now.asked not in (chosen, self.roster):
            return False
        if chosen == self.roster:
            return len(now.answered) >= terms.threshold
        return len(now.agreed) >= terms.threshold and now.answered == chosen

    @precondition(lambda self: self.lead.ready)
    @rule()
    def settle(self) -> None:
        """After any history, the next round opens over the roster if no country drops out."""
        self.carry_all()
        self.what_opens_is_the_sum()
        if not self.lead.ready:
            self.complete_set_up()
        self.lead.begin(self.lead.number + 1, "train")
        self.post("contribute", self.roster)
        self.carry_all()
        assert self.lead.close() == self.roster
        self.post("answer", self.roster)
        self.carry_all()
        assert self.lead.round is not None
        assert isinstance(self.lead.round.open(), OpenedSum)
        self.what_opens_is_the_sum()

    def complete_set_up(self) -> None:
        for step, reply_kind in SET_UP.items():
            silent = [
                country for country in self.roster if country not in self.lead.replies[reply_kind]
            ]
            self.post(step, silent)
            self.carry_all()
        assert self.lead.ready

    def teardown(self) -> None:
        if hasattr(self, "lead"):
            self.settle()


Lossy.TestCase.settings = settings(UNHURRIED, max_examples=examples(40), stateful_step_count=30)
TestLossy = pytest.mark.timeout(600)(Lossy.TestCase)


class Longer(Lossy):
    """The same, with more examples."""


Longer.TestCase.settings = settings(UNHURRIED, max_examples=400, stateful_step_count=60)
TestLonger = pytest.mark.slow(pytest.mark.timeout(900)(Longer.TestCase))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hundred_countries_sum_exactly_while_twenty_drop_out() -> None:
    world = ProtocolWorld.ready(200, honest=2, colluding=3)
    staying = [country for index, country in enumerate(world.terms.roster) if index % 10]
    result = world.sum(
        1, "train", {country: ZEROS + index for index, country in enumerate(staying)}
    )
    assert isinstance(result, OpenedSum)
    assert result.countries == tuple(staying)
    assert result.values.tolist() == [sum(range(180))] * ZEROS.size
