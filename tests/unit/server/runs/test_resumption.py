"""A run that is killed at any moment is resumed, with the result of an undisturbed run.

The coordinator's process dies before or after any message, any database statement, any request to
the daemon and any step of the release; the nodes are real, and continue. Each run must end with the
result of an undisturbed run, under the same id; each repeated request must be the same, byte
for byte, and each ledger must be charged once.
"""

import secrets
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from server.runs import attempt as attempt_module
from server.runs.attempt import run_attempt
from server.runs.procedure import RunVoid
from server.runs.rounds import ANSWERED
from server.services.run_supervisor import MAX_FRUITLESS_ATTEMPTS
from tests.support.coordinator_services import FIRST_FLOWER_RUN
from tests.support.crashing_coordinator import RUN, CrashingRun, PreparedStudy
from tests.support.documents import BOTH, COUNTRIES, NOW, training_fields

EVALUATION = {"held_out": 0.25, "bins": 4, "share": 0.25}
TRAINING = {"id": "who-is-ill"} | training_fields(3, evaluation=EVALUATION)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_module, "utc_now", lambda: NOW)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> PreparedStudy:
    return PreparedStudy(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> PreparedStudy:
    return PreparedStudy(tmp_path_factory.mktemp("training"), **TRAINING)


AWAY = "EE"
OTHERS = ("DK", "NO", "PT")


def run_undisturbed(prepared: PreparedStudy, *away: str) -> CrashingRun:
    run = prepared.launch()
    run.carrier.away |= {*away}
    assert not run.attempt_dies()
    return run


def require_undisturbed_outcome(run: CrashingRun, undisturbed_run: CrashingRun) -> None:
    """Raise unless the run has ended like an undisturbed one."""
    row = run.coordinator.context.runs.get(RUN)
    assert (row.state, row.reason, row.attempt) == ("finished", "", run.attempts)
    repeated = {place: frames for place, frames in run.carrier.sent.items() if len(frames) > 1}
    assert not repeated, "a request was repeated with other contents"
    assert run.carrier.sent.keys() == undisturbed_run.carrier.sent.keys()
    assert run.ledgers() == undisturbed_run.ledgers()
    result, expected = run.result, undisturbed_run.result
    assert (result.run, result.table, result.rounds_void) == (RUN, expected.table, 0)
    assert (result.countries, result.figures_over) == (expected.countries, expected.figures_over)
    assert run.model == undisturbed_run.model
    kinds = Counter(run.coordinator.log_kinds())
    assert kinds["result-released"] == kinds["study-finished"] == kinds["study-launched"] == 1
    assert kinds["round-opened"] == len(run.coordinator.context.runs.rounds_of(RUN))
    assert kinds["round-void"] == 0
    assert kinds["run-resumed"] == run.attempts - 1


def kill_at_every_moment(
    prepared: PreparedStudy, stride: int, first: int = 1, away: str = ""
) -> int:
    """Kill a run at every `stride`-th moment, one run each; return how many were killed.

    The country `away`, if any, takes no part in any round.
    """
    undisturbed_run, at = run_undisturbed(prepared, away), first
    while True:
        run = prepared.launch()
        run.carrier.away |= {away}
        died = run.attempt_dies(at)
        if died and not run.over:
            run.supervise_runs()
            assert not run.attempt_dies()
        require_undisturbed_outcome(run, undisturbed_run)
        run.close()
        if not died:
            return (at - first) // stride
        at += stride


def test_a_table_run_killed_at_some_moments_is_resumed(table: PreparedStudy) -> None:
    assert kill_at_every_moment(table, stride=29, first=17) > 0


def test_a_table_run_with_two_signatures_killed_at_some_moments_is_resumed(tmp_path: Path) -> None:
    """ML-DSA signs with fresh randomness: a request that is repeated has another signature."""
    assert kill_at_every_moment(PreparedStudy(tmp_path, BOTH), stride=97, first=29) > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_table_run_killed_at_every_moment_is_resumed(table: PreparedStudy) -> None:
    assert kill_at_every_moment(table, stride=1) > 30


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_run_killed_at_every_moment_is_resumed(training: PreparedStudy) -> None:
    assert kill_at_every_moment(training, stride=1) > 60


def run_with_one_away(
    prepared: PreparedStudy, at: int, *, away_before_crash: bool
) -> CrashingRun | None:
    """Execute a run in which one country is away before a crash, or otherwise after it.

    Returns None if the run was over before that moment.
    """
    run = prepared.launch()
    run.carrier.away = {AWAY} if away_before_crash else set()
    if not run.attempt_dies(at) or run.over:
        return None
    run.carrier.away = set() if away_before_crash else {AWAY}
    run.supervise_runs()
    with suppress(RunVoid):
        run.attempt_dies()
    return run


def require_one_outcome(run: CrashingRun) -> str:
    """Return how the run ended: over all countries, over OTHERS, or void with the reason."""
    row = run.coordinator.context.runs.get(RUN)
    if row.state == "void":
        assert f"{AWAY}: no reply in time" in row.reason
        assert ANSWERED in row.reason
        return "void"
    assert row.state == "finished"
    repeated = {place: frames for place, frames in run.carrier.sent.items() if len(frames) > 1}
    assert not repeated, "a request was repeated with other bytes"
    assert run.result.figures_over in (COUNTRIES, OTHERS)
    return "all" if run.result.figures_over == COUNTRIES else "others"


def outcomes_with_one_away(
    prepared: PreparedStudy, stride: int, *, away_before_crash: bool
) -> Counter[str]:
    """Return how runs ended, one for each `stride`-th moment of a crash."""
    outcomes, at = Counter[str](), 1
    while run := run_with_one_away(prepared, at, away_before_crash=away_before_crash):
        outcomes[require_one_outcome(run)] += 1
        run.close()
        at += stride
    return outcomes


def test_a_killed_table_run_without_one_country_is_resumed(table: PreparedStudy) -> None:
    assert kill_at_every_moment(table, stride=29, first=17, away=AWAY) > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_table_run_without_one_country_killed_at_many_moments_is_resumed(
    table: PreparedStudy,
) -> None:
    assert kill_at_every_moment(table, stride=2, away=AWAY) > 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_run_without_one_country_killed_at_many_moments_is_resumed(
    training: PreparedStudy,
) -> None:
    assert kill_at_every_moment(training, stride=4, away=AWAY) > 20


def test_a_run_killed_after_its_smaller_set_was_stored_opens_that_set(
    table: PreparedStudy,
) -> None:
    """The country that was away is back, and is not asked again."""
    run = table.launch()
    run.carrier.away = {AWAY}
    assert run.attempt_dies(("exchange", 6))  # three of set-up, twice contribute, and then agree
    assert not any(place.phase == "agree" for _, place in run.carrier.sent)
    run.carrier.away, count = set(), len(run.carrier.calls)
    run.supervise_runs()
    assert not run.attempt_dies()
    assert run.result.figures_over == OTHERS
    assert run.carrier.calls[count:] == [OTHERS] * 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_loses_no_sum_if_its_missing_country_returns_after_a_crash(
    table: PreparedStudy,
) -> None:
    outcomes = outcomes_with_one_away(table, 3, away_before_crash=True)
    assert set(outcomes) == {"all", "others"}, outcomes


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_may_be_void_if_a_country_is_missing_after_a_crash_amid_the_answers(
    table: PreparedStudy,
) -> None:
    outcomes = outcomes_with_one_away(table, 3, away_before_crash=False)
    assert set(outcomes) == {"all", "others", "void"}, outcomes


def test_a_training_run_killed_in_each_of_its_rounds_ends_with_the_same_model(
    training: PreparedStudy,
) -> None:
    """The run is killed again and again, a few moments later each time."""
    undisturbed_run, run = run_undisturbed(training), training.launch()
    moments = iter(range(12, 200, 7))
    while run.attempt_dies(next(moments)) and not run.over:
        run.supervise_runs()
    assert run.attempts > 3
    assert undisturbed_run.model
    require_undisturbed_outcome(run, undisturbed_run)


def test_a_run_without_progress_is_abandoned_with_the_reason(table: PreparedStudy) -> None:
    run = table.launch()
    for _ in range(MAX_FRUITLESS_ATTEMPTS):
        assert run.attempt_dies(("exchange", 1))
        run.supervise_runs()
    row = run.coordinator.context.runs.get(RUN)
    assert (row.state, row.attempt) == ("failed", MAX_FRUITLESS_ATTEMPTS)
    assert "5 attempts in a row" in row.reason
    assert "To do:" in row.reason
    run.supervise_runs()
    assert run.coordinator.context.runs.get(RUN) == row


def test_progress_allows_further_attempts(training: PreparedStudy) -> None:
    """More crashes than MAX_FRUITLESS_ATTEMPTS, with progress between them."""
    run = training.launch()
    deaths = [("exchange", 1), ("exchange", 6), *[("exchange", 1), ("exchange", 3)] * 2]
    for at in deaths:
        assert run.attempt_dies(at)
        run.supervise_runs()
    assert not run.attempt_dies()
    assert run.attempts > MAX_FRUITLESS_ATTEMPTS
    assert run.coordinator.context.runs.get(RUN).state == "finished"


def test_a_live_attempt_is_left_alone_and_a_dead_one_is_replaced(table: PreparedStudy) -> None:
    run = table.launch()
    original_exchange = run.carrier.exchange

    def exchange_and_supervise(
        frames: Mapping[str, bytes], seconds: float, largest_reply: int
    ) -> Mapping[str, bytes]:
        run.supervise_runs(runs_lost=False)
        assert run.coordinator.context.runs.get(RUN).attempt == 1
        return original_exchange(frames, seconds, largest_reply)

    run.carrier.exchange = exchange_and_supervise  # type: ignore[method-assign]
    assert run.attempt_dies(("exchanged", 2))
    run.supervise_runs(runs_lost=False)
    assert run.coordinator.context.runs.get(RUN).attempt == 2
    assert len(run.coordinator.flower.bundles) == 2
    assert run.coordinator.flower.stopped == [FIRST_FLOWER_RUN]


def test_an_attempt_that_never_began_is_replaced_in_time(table: PreparedStudy) -> None:
    run = table.launch()
    documents = run.coordinator.federation.documents
    run.supervise_runs(runs_lost=False)
    assert run.coordinator.context.runs.get(RUN).attempt == 1
    documents.now += timedelta(seconds=30)
    run.supervise_runs(runs_lost=False)
    assert run.coordinator.context.runs.get(RUN).attempt == 2


def test_newer_documents_do_not_change_the_requests(table: PreparedStudy) -> None:
    """Newer versions between two attempts: the nodes have them, and repeat their replies."""
    run = table.launch()
    assert run.attempt_dies(("exchanged", 4))
    federation = run.coordinator.federation
    federation.approved(id="another-question")
    run.supervise_runs()
    assert not run.attempt_dies()
    assert all(len(frames) == 1 for frames in run.carrier.sent.values())


def test_a_permit_withdrawn_between_two_attempts_leaves_its_country_out(
    table: PreparedStudy,
) -> None:
    run = table.launch()
    assert run.attempt_dies(("exchanged", 4))
    run.coordinator.federation.withdraw("EE", run.study)
    run.supervise_runs()
    assert not run.attempt_dies()
    result = run.result
    assert result.countries == result.figures_over == ("DK", "NO", "PT")
    assert "The figures are sums over DK, NO, PT." in result.statement


def test_withdrawals_that_leave_too_few_countries_end_the_run_with_the_reason(
    table: PreparedStudy,
) -> None:
    run = table.launch()
    assert run.attempt_dies(("exchanged", 4))
    for country in ("DK", "EE"):
        run.coordinator.federation.withdraw(country, run.study)
    run.supervise_runs()
    with pytest.raises(Exception, match="EE"):
        run.attempt_dies()
    row = run.coordinator.context.runs.get(RUN)
    assert row.state == "void"
    assert "DK: refused (no-permit); EE: refused (no-permit)" in row.reason


def test_an_old_bundle_submitted_by_a_stranger_executes_nothing(table: PreparedStudy) -> None:
    run = table.launch()
    assert run.attempt_dies(("exchanged", 4))
    run.supervise_runs()
    for number in (0, 1, 3, secrets.randbelow(100) + 4):
        with pytest.raises(Exception, match="may not execute"):
            run_attempt(run.coordinator.home, RUN, number, run.carrier, run.services, seconds=1)
    assert not run.attempt_dies()
    with pytest.raises(Exception, match="may not execute"):
        run_attempt(run.coordinator.home, RUN, 2, run.carrier, run.services, seconds=1)


@pytest.mark.parametrize("moment", ["publish", "published", "released"])
def test_a_result_that_was_signed_is_not_signed_again(training: PreparedStudy, moment: str) -> None:
    """Killed shortly before or after its publication, and resumed an hour later.

    The result of a run that ends an hour later would differ.
    """
    run = training.launch()
    assert run.attempt_dies((moment, 1))
    signed = run.result
    run.coordinator.federation.documents.now += timedelta(hours=1)
    if not run.over:
        run.supervise_runs()
        assert not run.attempt_dies()
    assert run.result == signed
    row = run.coordinator.context.runs.get(RUN)
    assert (row.state, row.reason) == ("finished", "")
    kinds = Counter(run.coordinator.log_kinds())
    assert kinds["result-released"] == kinds["study-finished"] == 1
