import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, select

from governance.budget.accounting import rdp_micro
from governance.budget.composition import LARGER, SUM
from governance.budget.ledger import Ledger, LedgerEntry, LedgerView, ledger_entries
from governance.budget.period import Period, period_of
from governance.errors import LedgerFault
from protocols.errors import ReasonCode, Refusal
from tests.support.ledger_and_log import (
    EFFECTIVE,
    NOW,
    PERIOD_DAYS,
    STUDY,
    node_state,
    release,
    run_id,
    terms,
)
from tests.support.narrowing import present

ONE = rdp_micro(release(), 2, 8)
ROOMY = 100 * ONE
OTHER_STUDY = "sha256:" + "6" * 64


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return node_state(tmp_path)


@pytest.fixture
def ledger(engine: Engine) -> Ledger:
    return Ledger(engine)


def charge(
    ledger: Ledger, number: int = 1, cap: int = ROOMY, **changed: Any
) -> tuple[LedgerEntry, ...]:
    plain: dict[str, Any] = {
        "study": STUDY,
        "run": run_id(number),
        "mechanisms": [release()],
        "now": NOW,
    }
    return ledger.reserve(terms(cap), **{**plain, **changed})


def spent(ledger: Ledger) -> int:
    return ledger.view(terms(ROOMY)).spent_micro


def test_an_entry_holds_the_mechanism_and_its_cost(ledger: Ledger) -> None:
    (entry,) = charge(ledger)
    assert entry.mechanism == release()
    assert entry.rdp_micro == ONE == spent(ledger)
    assert (entry.register, entry.period, entry.order, entry.honest) == ("adults", 0, 8, 2)
    assert (entry.study, entry.run, entry.phase) == (STUDY, run_id(1), "train")
    assert (entry.position, entry.created) == (0, NOW)
    assert ledger.entries() == [entry]


def test_the_stored_mechanism_is_canonical_json(engine: Engine, ledger: Ledger) -> None:
    charge(ledger)
    with engine.begin() as connection:
        stored = present(connection.scalar(select(ledger_entries.c.mechanism)))
    assert json.loads(stored)["noise_std"] == 4000
    assert " " not in stored


def test_a_schedule_is_charged_completely(ledger: Ledger) -> None:
    schedule = [release(), release(phase="evaluate", rounds=1)]
    entries = charge(ledger, mechanisms=schedule)
    assert [entry.phase for entry in entries] == ["train", "evaluate"]
    assert spent(ledger) == sum(entry.rdp_micro for entry in entries)


def test_a_schedule_that_does_not_fit_is_not_charged_in_part(ledger: Ledger) -> None:
    schedule = [release(phase="evaluate", rounds=1), release()]
    with pytest.raises(Refusal):
        charge(ledger, cap=ONE, mechanisms=schedule)
    assert ledger.entries() == []


def test_the_cap_itself_may_be_reached_and_not_passed(ledger: Ledger) -> None:
    charge(ledger, 1, cap=2 * ONE)
    charge(ledger, 2, cap=2 * ONE)
    with pytest.raises(Refusal) as caught:
        charge(ledger, 3, cap=2 * ONE)
    assert caught.value.code is ReasonCode.BUDGET
    assert spent(ledger) == 2 * ONE


def test_one_micro_unit_over_the_cap_is_refused(ledger: Ledger) -> None:
    with pytest.raises(Refusal):
        charge(ledger, cap=ONE - 1)
    assert charge(ledger, cap=ONE)


def test_a_refusal_states_the_requested_and_the_remaining_budget(ledger: Ledger) -> None:
    with pytest.raises(Refusal) as caught:
        charge(ledger, cap=ONE - 1)
    assert f"{ONE / 1e6:.6f}" in caught.value.why
    assert f"{(ONE - 1) / 1e6:.6f} is left until 2027-01-01" in caught.value.why
    assert "adults" in caught.value.what


def test_a_repetition_charges_nothing_and_returns_the_existing_entry(ledger: Ledger) -> None:
    first = charge(ledger)
    assert charge(ledger, now=NOW + timedelta(hours=1)) == first
    assert spent(ledger) == ONE


def test_a_repetition_is_answered_even_when_the_budget_is_spent(ledger: Ledger) -> None:
    first = charge(ledger, cap=ONE)
    assert charge(ledger, cap=ONE) == first
    assert charge(ledger, cap=0) == first


def test_a_repetition_in_a_later_period_is_not_charged_again(ledger: Ledger) -> None:
    first = charge(ledger)
    later = NOW + timedelta(days=PERIOD_DAYS)
    again = ledger.reserve(
        terms(ROOMY, now=later), study=STUDY, run=run_id(1), mechanisms=[release()], now=later
    )
    assert again == first
    assert ledger.view(terms(ROOMY)).lifetime_micro == ONE


def test_a_longer_schedule_is_charged_for_the_new_releases(ledger: Ledger) -> None:
    charge(ledger)
    extra = release(phase="evaluate", rounds=1)
    charge(ledger, mechanisms=[release(), extra])
    assert spent(ledger) == ONE + rdp_micro(extra, 2, 8)


@pytest.mark.parametrize(
    "changed",
    [
        {"study": OTHER_STUDY},
        {"mechanisms": [release(noise_std=3999)]},
        {"mechanisms": [release(rounds=11)]},
    ],
)
def test_one_run_and_phase_is_one_charge(ledger: Ledger, changed: dict[str, Any]) -> None:
    charge(ledger)
    with pytest.raises(LedgerFault, match="other contents"):
        charge(ledger, **changed)
    assert spent(ledger) == ONE


@pytest.mark.parametrize("changed", [{"register": "children"}, {"honest": 3}])
def test_one_run_has_one_register_and_one_h(ledger: Ledger, changed: dict[str, Any]) -> None:
    charge(ledger)
    with pytest.raises(LedgerFault, match="other contents"):
        ledger.reserve(
            terms(ROOMY, **changed),
            study=STUDY,
            run=run_id(1),
            mechanisms=[release()],
            now=NOW,
        )


def test_a_schedule_that_names_a_phase_twice_is_refused(ledger: Ledger) -> None:
    with pytest.raises(LedgerFault, match="phase twice"):
        charge(ledger, mechanisms=[release(), release()])
    assert ledger.entries() == []


def test_each_register_has_a_separate_budget(ledger: Ledger) -> None:
    charge(ledger, 1, cap=ONE)
    ledger.reserve(
        terms(ONE, register="children"),
        study=STUDY,
        run=run_id(2),
        mechanisms=[release()],
        now=NOW,
    )
    children = ledger.view(terms(ONE, register="children")).spent_micro
    assert spent(ledger) == children == ONE
    assert len(ledger.entries(register="children")) == 1
    assert [entry.run for entry in ledger.entries(run=run_id(1))] == [run_id(1)]
    assert ledger.entries(register="adults", run=run_id(2)) == []


def test_a_new_study_or_cohort_opens_no_new_budget(ledger: Ledger) -> None:
    charge(ledger, 1, cap=ONE)
    with pytest.raises(Refusal):
        charge(ledger, 2, cap=ONE, study=OTHER_STUDY)


def test_a_new_period_opens_a_new_budget_and_the_lifetime_adds_up(ledger: Ledger) -> None:
    charge(ledger, 1, cap=ONE)
    later = EFFECTIVE + timedelta(days=PERIOD_DAYS)
    following = terms(ONE, now=later)
    ledger.reserve(following, study=STUDY, run=run_id(2), mechanisms=[release()], now=later)
    assert ledger.view(following) == LedgerView(
        register="adults",
        period=Period(1, later, later + timedelta(days=PERIOD_DAYS), since=later),
        order=8,
        cap_micro=ONE,
        spent_micro=ONE,
        lifetime_micro=2 * ONE,
    )
    assert spent(ledger) == ONE


def test_the_charge_of_a_run_that_lives_on_counts_in_the_next_period_too(ledger: Ledger) -> None:
    """It pays for the run's next sums: the same people would get two caps in one period."""
    charge(ledger, 1, cap=ONE)
    later = EFFECTIVE + timedelta(days=PERIOD_DAYS)
    following = terms(ONE, now=later, carried=frozenset({run_id(1), run_id(9)}))
    view = ledger.view(following)
    assert (view.spent_micro, view.left_micro, view.lifetime_micro) == (ONE, 0, ONE)
    with pytest.raises(Refusal, match="does not cover"):
        ledger.reserve(following, study=STUDY, run=run_id(2), mechanisms=[release()], now=later)
    children = replace(following, register="children")
    assert ledger.view(children).spent_micro == 0


def test_a_charge_of_this_period_counts_once_although_its_run_is_carried(ledger: Ledger) -> None:
    charge(ledger, 1)
    assert ledger.view(terms(ROOMY, carried=frozenset({run_id(1)}))).spent_micro == ONE


def test_an_amended_agreement_opens_no_new_budget(ledger: Ledger) -> None:
    """A later effective date numbers the periods again; charges within these days still count."""
    charge(ledger, 1, cap=ONE)
    amended = period_of(NOW - timedelta(days=1), PERIOD_DAYS, NOW)
    assert amended.index == 0
    with pytest.raises(Refusal):
        ledger.reserve(
            terms(ONE, period=amended),
            study=STUDY,
            run=run_id(2),
            mechanisms=[release()],
            now=NOW,
        )


@pytest.mark.parametrize(
    ("moved", "waited", "counts"),
    [
        (timedelta(seconds=1), timedelta(seconds=1), True),
        (timedelta(days=1), timedelta(days=200), True),
        (timedelta(days=1), timedelta(days=PERIOD_DAYS), True),
        (timedelta(days=1), timedelta(days=PERIOD_DAYS, microseconds=1), False),
        (timedelta(days=200), timedelta(days=201), True),
        (timedelta(days=1), timedelta(days=PERIOD_DAYS + 1), False),
    ],
)
def test_an_agreement_that_takes_effect_after_a_charge_still_counts_it(
    ledger: Ledger, moved: timedelta, waited: timedelta, counts: bool
) -> None:
    """Its first period also counts charges made up to one period's length before its start."""
    charge(ledger, 1, cap=ONE)
    now = NOW + waited
    amended = terms(ONE, period=period_of(NOW + moved, PERIOD_DAYS, now))
    assert ledger.view(amended).spent_micro == (ONE if counts else 0)

    def reserve_again() -> None:
        ledger.reserve(amended, study=STUDY, run=run_id(2), mechanisms=[release()], now=now)

    if counts:
        with pytest.raises(Refusal, match="does not cover"):
            reserve_again()
    else:
        reserve_again()
    assert len(ledger.entries()) == (1 if counts else 2)


def test_entries_charged_at_another_order_count_at_this_one(ledger: Ledger) -> None:
    charge(ledger, 1)
    other = terms(ROOMY, order=16)
    expected = rdp_micro(release(), 2, 16)
    assert expected != ONE
    assert ledger.view(other).spent_micro == expected
    with pytest.raises(Refusal):
        ledger.reserve(
            terms(2 * expected - 1, order=16),
            study=STUDY,
            run=run_id(2),
            mechanisms=[release()],
            now=NOW,
        )


def test_the_remaining_budget_is_never_negative(ledger: Ledger) -> None:
    charge(ledger)
    assert ledger.view(terms(ROOMY)).left_micro == ROOMY - ONE
    assert ledger.view(terms(1)).left_micro == 0


def test_an_empty_ledger_has_the_complete_budget_left(ledger: Ledger) -> None:
    view = ledger.view(terms(5))
    assert (view.spent_micro, view.lifetime_micro, view.left_micro) == (0, 0, 5)


@pytest.mark.parametrize(
    "now", [EFFECTIVE - timedelta(microseconds=1), EFFECTIVE + timedelta(days=PERIOD_DAYS)]
)
def test_a_charge_outside_its_period_is_refused(ledger: Ledger, now: datetime) -> None:
    with pytest.raises(LedgerFault, match="outside"):
        charge(ledger, now=now)
    assert ledger.entries() == []


def test_a_charge_is_kept_only_if_the_caller_s_transaction_commits(
    engine: Engine, ledger: Ledger
) -> None:
    with engine.connect() as outer:
        (entry,) = charge(ledger, connection=outer)
        assert ledger.view(terms(ROOMY), outer).spent_micro == entry.rdp_micro
        outer.rollback()
    assert ledger.entries() == []


def in_threads(count: int, work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_hundred_threads_never_pass_the_cap(ledger: Ledger) -> None:
    done: list[str] = []

    def work(number: int) -> None:
        try:
            charge(ledger, number, cap=37 * ONE + ONE // 2)
            done.append("charged")
        except Refusal:
            done.append("refused")

    in_threads(100, work)
    assert (done.count("charged"), done.count("refused")) == (37, 63)
    assert spent(ledger) == 37 * ONE


def test_a_hundred_threads_with_one_run_charge_once(ledger: Ledger) -> None:
    receipts: list[object] = []
    in_threads(100, lambda _: receipts.append(charge(ledger)))
    assert len(receipts) == 100
    assert len(set(receipts)) == 1
    assert spent(ledger) == ONE


def in_processes(count: int, work: Callable[[int], int]) -> list[int]:
    """Fork `count` processes at once; `work` returns the exit status of each."""
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            os._exit(guarded(work, number))
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def guarded(work: Callable[[int], int], number: int) -> int:
    try:
        return work(number)
    except BaseException:  # noqa: BLE001  a forked child must not return into pytest
        return 99


def test_a_hundred_writers_in_twenty_processes_never_pass_the_cap(tmp_path: Path) -> None:
    node_state(tmp_path).dispose()

    def charged(number: int) -> bool:
        engine = node_state(tmp_path)
        try:
            charge(Ledger(engine), number, cap=37 * ONE + ONE // 2)
        except Refusal:
            return False
        finally:
            engine.dispose()  # whoever closes last deletes SQLite's write-ahead log
        return True

    def work(process: int) -> int:
        with ThreadPoolExecutor(5) as writers:
            return sum(writers.map(charged, range(5 * process, 5 * process + 5)))

    statuses = in_processes(20, work)
    assert max(statuses) <= 5, "each process ended well"
    assert sum(statuses) == 37
    assert spent(Ledger(node_state(tmp_path))) == 37 * ONE


class Stop(Exception):
    """Raised where the process would die."""


def stop_at(engine: Engine, step: int) -> list[str]:
    """Fail before the statement or commit number `step`; return the statements until then."""
    statements: list[str] = []

    def count(what: str) -> None:
        statements.append(what)
        if len(statements) == step:
            raise Stop

    def statement(_c: object, _cursor: object, sql: str, *_: object) -> None:
        count(sql)

    def commit(_connection: object) -> None:
        count("COMMIT")

    event.listen(engine, "before_cursor_execute", statement)
    event.listen(engine, "commit", commit)
    return statements


def test_a_stop_before_any_statement_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    schedule = [release(), release(phase="evaluate")]
    for step in range(1, 100):
        engine = node_state(tmp_path / str(step))
        statements = stop_at(engine, step)
        try:
            charge(Ledger(engine), mechanisms=schedule)
        except Stop:
            engine.dispose()
            fresh = Ledger(node_state(tmp_path / str(step)))
            assert fresh.entries() == []
            assert len(charge(fresh, mechanisms=schedule)) == 2
            assert spent(fresh) == 2 * ONE
        else:
            break
    assert statements[0] == "BEGIN IMMEDIATE"
    assert statements[-1] == "COMMIT"
    assert step > 8


def test_assumed_charges_may_exceed_the_cap_and_leave_no_budget(
    engine: Engine, ledger: Ledger
) -> None:
    few = terms(1)
    with engine.begin() as connection:
        ledger.assume(
            few,
            study=STUDY,
            run="r",
            mechanisms=[release()],
            now=NOW,
            accounting=SUM,
            connection=connection,
        )
    view = ledger.view(few)
    assert view.spent_micro > view.cap_micro
    assert view.left_micro == 0
    with pytest.raises(Refusal):
        charge(ledger, cap=1)


def test_only_a_restoration_makes_assumed_charges() -> None:
    """Every other charge checks first that the budget suffices."""
    root = Path(__file__).parents[4]
    rooms = ("keys", "protocols", "governance", "client", "server")
    files = [file for room in rooms for file in (root / room).rglob("*.py")]
    users = {str(f.relative_to(root)) for f in files if ".assume(" in f.read_text("utf-8")}
    assert users == {"client/restore.py"}


TRAINED, EVALUATED = "train", "evaluate"
BIG = 10**12


def _split_run(ledger: Ledger, cap: int, run: str = "r") -> None:
    """Charge a run whose training and evaluation are paid by different patients."""
    mechanisms = [
        release(phase=TRAINED, noise_std=3_000),
        release(phase=EVALUATED, noise_std=9_000),
        release(phase="count", noise_std=9_000),
    ]
    ledger.reserve(
        terms(cap), study=STUDY, run=run, mechanisms=mechanisms, now=NOW, accounting=LARGER
    )


def test_a_run_costs_what_everybody_pays_and_the_costlier_part(ledger: Ledger) -> None:
    _split_run(ledger, BIG)
    prices = {entry.phase: entry.rdp_micro for entry in ledger.entries()}
    parts = {entry.phase: entry.part for entry in ledger.entries()}
    assert parts == {TRAINED: "training", EVALUATED: "held-out", "count": None}
    assert prices[TRAINED] > prices[EVALUATED] > 0
    assert ledger.view(terms(BIG)).spent_micro == prices[TRAINED] + prices["count"]
    _split_run(ledger, BIG)  # repeated: nothing more
    _split_run(ledger, BIG, "s")
    assert ledger.view(terms(BIG)).spent_micro == 2 * (prices[TRAINED] + prices["count"])
    at_other = ledger.view(replace(terms(BIG), order=16))
    again = {e.phase: rdp_micro(e.mechanism, e.honest, 16) for e in ledger.entries(run="r")}
    assert at_other.spent_micro == 2 * (again[TRAINED] + again["count"])


def test_room_for_the_costlier_part_is_enough_and_less_is_not(ledger: Ledger) -> None:
    prices = {
        noise: rdp_micro(release(noise_std=noise), terms(BIG).honest, terms(BIG).order)
        for noise in (3_000, 9_000)
    }
    needed = prices[3_000] + prices[9_000]
    with pytest.raises(Refusal):
        _split_run(ledger, needed - 1)
    assert not ledger.entries()
    _split_run(ledger, needed)
    assert ledger.view(terms(needed)).left_micro == 0


def test_a_part_that_is_charged_later_adds_only_what_it_costs_more(ledger: Ledger) -> None:
    first, then = release(phase=EVALUATED, noise_std=9_000), release(phase=TRAINED, noise_std=3_000)
    more = rdp_micro(then, terms(BIG).honest, terms(BIG).order)
    for mechanism in (first, then):
        ledger.reserve(
            terms(more), study=STUDY, run="r", mechanisms=[mechanism], now=NOW, accounting=LARGER
        )
    assert ledger.view(terms(more)).spent_micro == more


def test_a_study_of_an_earlier_version_pays_the_sum(ledger: Ledger) -> None:
    mechanisms = [release(phase=TRAINED), release(phase=EVALUATED)]
    ledger.reserve(terms(BIG), study=STUDY, run="r", mechanisms=mechanisms, now=NOW)
    entries = ledger.entries()
    assert [entry.part for entry in entries] == [None, None]
    assert ledger.view(terms(BIG)).spent_micro == sum(entry.rdp_micro for entry in entries)


def test_what_was_charged_in_an_earlier_period_makes_no_charge_cheaper(ledger: Ledger) -> None:
    """The evaluation was charged in a period that is over, and its run is not carried on."""
    evaluated, trained = release(phase=EVALUATED), release(phase=TRAINED, noise_std=9_000)
    later = EFFECTIVE + timedelta(days=PERIOD_DAYS)
    cost = rdp_micro(trained, 2, 8)
    assert cost < rdp_micro(evaluated, 2, 8)
    given: dict[str, Any] = {"study": STUDY, "run": "r", "accounting": LARGER}
    ledger.reserve(terms(BIG), mechanisms=[evaluated], now=NOW, **given)
    with pytest.raises(Refusal):
        ledger.reserve(terms(cost - 1, now=later), mechanisms=[trained], now=later, **given)
    following = terms(cost, now=later)
    ledger.reserve(following, mechanisms=[trained], now=later, **given)
    assert ledger.view(following).spent_micro == cost


def test_at_another_order_another_part_may_cost_more(ledger: Ledger) -> None:
    """A sampled training costs less than the evaluation at a low order, and more at a high one."""
    mechanisms = {
        TRAINED: release(phase=TRAINED, rounds=200, sampling_rate=0.02, noise_std=1_500),
        EVALUATED: release(phase=EVALUATED, noise_std=1_500),
    }
    costs = {
        order: {phase: rdp_micro(m, 2, order) for phase, m in mechanisms.items()}
        for order in (4, 64)
    }
    assert costs[4][TRAINED] < costs[4][EVALUATED]
    assert costs[64][TRAINED] > costs[64][EVALUATED]
    for order, phase in ((4, TRAINED), (64, EVALUATED)):  # the second adds nothing
        ledger.reserve(
            terms(costs[order][TRAINED], order=order),
            study=STUDY,
            run="r",
            mechanisms=[mechanisms[phase]],
            now=NOW,
            accounting=LARGER,
        )
    for order, by_phase in costs.items():
        assert ledger.view(terms(BIG, order=order)).spent_micro == max(by_phase.values())
