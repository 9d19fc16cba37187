"""Releases that the filter allows stay within the agreement's (ε, δ), whatever is requested."""

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
derived = releases.map(lambda release: release.model_copy(update={"scope": Scope.DERIVED}))


@given(
    releases_asked=st.lists(releases | derived, min_size=1, max_size=12),
    order=st.sampled_from([8, 16, 32]),
    honest=st.integers(1, 4),
)
@settings(max_examples=examples(25), deadline=None)
def test_the_filter_never_passes_its_cap(
    releases_asked: list[Mechanism], order: int, honest: int
) -> None:
    target = 3.0
    cap = cap_micro(target, DELTA, order)
    charged = []
    with tempfile.TemporaryDirectory() as folder:
        engine = node_state(Path(folder))
        ledger = Ledger(engine)
        budget = terms(cap, order=order, honest=honest)
        for number, mechanism in enumerate(releases_asked):
            try:
                ledger.reserve(
                    budget, study=STUDY, run=run_id(number), mechanisms=[mechanism], now=NOW
                )
            except Refusal:
                spent = ledger.view(budget).spent_micro
                assert spent + rdp_micro(mechanism, honest, order) > cap
            else:
                charged.append(mechanism)
        spent = ledger.view(budget).spent_micro
        engine.dispose()
    assert spent == sum(rdp_micro(each, honest, order) for each in charged) <= cap
    assert epsilon_of_rdp(spent, DELTA, order) <= target
    if any(each.costs for each in charged):
        assert epsilon(charged, honest, DELTA) <= target


@given(releases, st.integers(1, 5), st.integers(2, 64))
def test_charges_grow_with_rounds_and_shrink_with_noise(
    mechanism: Mechanism, honest: int, order: int
) -> None:
    cost = rdp_micro(mechanism, honest, order)
    twice = mechanism.model_copy(update={"rounds": 2 * mechanism.rounds})
    quieter = mechanism.model_copy(update={"noise_std": mechanism.noise_std + 1})
    assert 1 <= cost <= rdp_micro(twice, honest, order) <= 2 * cost
    assert rdp_micro(quieter, honest, order) <= cost
    assert rdp_micro(mechanism, honest + 1, order) <= cost


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
def test_derived_releases_add_no_cost(
    releases_asked: list[Mechanism], release: Mechanism, honest: int
) -> None:
    assert rdp_micro(release, honest, 8) == 0
    for position in range(len(releases_asked) + 1):
        schedule = [*releases_asked[:position], release, *releases_asked[position:]]
        assert epsilon(schedule, honest, DELTA) == epsilon(releases_asked, honest, DELTA)


@given(st.integers(0, 10**9), st.integers(2, 256), st.floats(1e-12, 0.5))
def test_a_ledgers_sum_and_its_epsilon_agree(micro: int, order: int, delta: float) -> None:
    stated = epsilon_of_rdp(micro, delta, order)
    if stated > 0:
        assert cap_micro(stated, delta, order) <= micro + 2 + micro // MICRO
