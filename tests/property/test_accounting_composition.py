"""What the filter lets through stays within the agreement's (ε, δ), whatever was asked."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from governance.budget.accounting import (
    MICRO,
    cap_micro,
    epsilon,
    epsilon_of_rdp,
    rdp_micro,
    slack,
    tau,
)
from governance.budget.ledger import Ledger
from protocols.errors import Refusal
from protocols.numerics.mechanism import Mechanism, Rounding, Scope
from tests.support.examples import examples
from tests.support.ledger_and_log import (
    NOW,
    STUDY,
    node_state,
    release,
    run_id,
    terms,
)

DELTA = 1e-4
releases = st.builds(
    release,
    rounds=st.integers(1, 200),
    dimension=st.integers(1, 50),
    noise_std=st.integers(3, 60_000),
    scale=st.sampled_from([1, 16, 1000]),
    sampling_rate=st.floats(0.001, 1.0),
    rounding=st.sampled_from(list(Rounding)),
    scope=st.sampled_from([Scope.SHARED, Scope.LOCAL]),
)
derived = releases.map(lambda one: one.model_copy(update={"scope": Scope.DERIVED}))


@given(
    asked=st.lists(releases | derived, min_size=1, max_size=12),
    order=st.sampled_from([8, 16, 32]),
    honest=st.integers(1, 4),
)
@settings(max_examples=examples(25), deadline=None)
def test_the_filter_never_passes_its_cap(asked: list[Mechanism], order: int, honest: int) -> None:
    target = 3.0
    cap = cap_micro(target, DELTA, order)
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        engine = node_state(Path(folder))
        ledger = Ledger(engine)
        budget = terms(cap, order=order, honest=honest)
        for number, mechanism in enumerate(asked):
            try:
                ledger.reserve(
                    budget, study=STUDY, run=run_id(number), mechanisms=[mechanism], now=NOW
                )
            except Refusal:
                spent = ledger.view(budget).spent_micro
                assert spent + rdp_micro(mechanism, honest, order) > cap
            else:
                taken.append(mechanism)
        spent = ledger.view(budget).spent_micro
        engine.dispose()
    assert spent == sum(rdp_micro(each, honest, order) for each in taken) <= cap
    assert epsilon_of_rdp(spent, DELTA, order) <= target
    if any(each.costs for each in taken):
        assert epsilon(taken, honest, DELTA) <= target


@given(releases, st.integers(1, 5), st.integers(2, 64))
def test_charges_grow_with_rounds_and_shrink_with_noise(
    mechanism: Mechanism, honest: int, order: int
) -> None:
    price = rdp_micro(mechanism, honest, order)
    twice = mechanism.model_copy(update={"rounds": 2 * mechanism.rounds})
    quieter = mechanism.model_copy(update={"noise_std": mechanism.noise_std + 1})
    assert 1 <= price <= rdp_micro(twice, honest, order) <= 2 * price
    assert rdp_micro(quieter, honest, order) <= price
    assert rdp_micro(mechanism, honest + 1, order) <= price


@given(releases, st.integers(1, 5), st.integers(2, 64))
def test_a_sample_never_costs_more_than_everybody(
    mechanism: Mechanism, honest: int, order: int
) -> None:
    full = mechanism.model_copy(update={"sampling_rate": 1.0})
    assert rdp_micro(mechanism, honest, order) <= rdp_micro(full, honest, order)


@given(releases, st.integers(1, 50))
def test_the_discrete_law_always_costs_something(mechanism: Mechanism, honest: int) -> None:
    assert slack(mechanism, honest) > 0
    assert tau(mechanism.noise_std, honest + 1) >= tau(mechanism.noise_std, honest)


@given(st.lists(releases, min_size=1, max_size=3), derived, st.integers(1, 5))
@settings(max_examples=examples(15), deadline=None)
def test_what_is_derived_adds_nothing(asked: list[Mechanism], made: Mechanism, honest: int) -> None:
    assert rdp_micro(made, honest, 8) == 0
    for place in range(len(asked) + 1):
        schedule = [*asked[:place], made, *asked[place:]]
        assert epsilon(schedule, honest, DELTA) == epsilon(asked, honest, DELTA)


@given(st.integers(0, 10**9), st.integers(2, 256), st.floats(1e-12, 0.5))
def test_a_ledgers_sum_and_its_epsilon_agree(micro: int, order: int, delta: float) -> None:
    told = epsilon_of_rdp(micro, delta, order)
    if told > 0:
        assert cap_micro(told, delta, order) <= micro + 2 + micro // MICRO
