"""A run that is killed at any moment is resumed, with the result of an undisturbed run.

The coordinator's process dies before or after any message, any database statement, any request to
the daemon and any step of the release; the nodes are real, and continue. Each run must end with the
result of an undisturbed run, under the same id; each repeated request must be the same byte by
byte, and each ledger must be charged once.
"""

import secrets
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from server.runs import attempt as conducting
from server.runs.attempt import run_attempt
from server.runs.procedure import RunVoid
from server.runs.rounds import ANSWERED
from server.services.run_supervisor import MAX_FRUITLESS_ATTEMPTS
from tests.support.crashing_coordinator import RUN, Scene, Stage
from tests.support.documents import BOTH, COUNTRIES, NOW, training_fields

EVALUATION = {"held_out": 0.25, "bins": 4, "share": 0.25}
TRAINING = {"id": "who-is-ill"} | training_fields(3, evaluation=EVALUATION)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conducting, "utc_now", lambda: NOW)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("training"), **TRAINING)


AWAY = "EE"
REST = ("DK", "NO", "PT")


def undisturbed(stage: Stage, *away: str) -> Scene:
    scene = stage.scene()
    scene.carrier.away |= {*away}
    assert not scene.attempt()
    return scene


def require_undisturbed_outcome(scene: Scene, whole: Scene) -> None:
    """Raise unless the run has ended like an undisturbed one."""
    row = scene.coordinator.context.runs.get(RUN)
    assert (row.state, row.reason, row.attempt) == ("finished", "", scene.attempts)
    repeated = {place: frames for place, frames in scene.carrier.sent.items() if len(frames) > 1}
    assert not repeated, "a request was repeated with other contents"
    assert scene.carrier.sent.keys() == whole.carrier.sent.keys()
    assert scene.ledgers() == whole.ledgers()
    found, expected = scene.result, whole.result
    assert (found.run, found.table, found.rounds_void) == (RUN, expected.table, 0)
    assert (found.countries, found.figures_over) == (expected.countries, expected.figures_over)
    assert scene.model == whole.model
    kinds = Counter(scene.coordinator.log_kinds())
    assert kinds["result-released"] == kinds["study-finished"] == kinds["study-launched"] == 1
    assert kinds["round-opened"] == len(scene.coordinator.context.runs.rounds_of(RUN))
    assert kinds["round-void"] == 0
    assert kinds["run-resumed"] == scene.attempts - 1


def killed_everywhere(stage: Stage, stride: int, first: int = 1, away: str = "") -> int:
    """Kill a run at every `stride`-th moment, one run each; return how many were killed.

    The country `away`, if any, takes no part in any round.
    """
    whole, at = undisturbed(stage, away), first
    while True:
        scene = stage.scene()
        scene.carrier.away |= {away}
        died = scene.attempt(at)
        if died and not scene.over:
            scene.supervise_runs()
            assert not scene.attempt()
        require_undisturbed_outcome(scene, whole)
        scene.close()
        if not died:
            return (at - first) // stride
        at += stride


def test_a_table_run_killed_at_some_moments_is_resumed(table: Stage) -> None:
    assert killed_everywhere(table, stride=29, first=17) > 0


def test_a_table_run_with_two_signatures_killed_at_some_moments_is_resumed(tmp_path: Path) -> None:
    """ML-DSA signs with fresh randomness: a request that is repeated has another signature."""
    assert killed_everywhere(Stage(tmp_path, BOTH), stride=97, first=29) > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_table_run_killed_at_every_moment_is_resumed(table: Stage) -> None:
    assert killed_everywhere(table, stride=1) > 30


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_run_killed_at_every_moment_is_resumed(training: Stage) -> None:
    assert killed_everywhere(training, stride=1) > 60


def ended_with_one_away(stage: Stage, at: int, *, first: bool) -> Scene | None:
    """Execute a run in which one country is away before a crash, or (not `first`) after it.

    Returns None if the run was over before that moment.
    """
    scene = stage.scene()
    scene.carrier.away = {AWAY} if first else set()
    if not scene.attempt(at) or scene.over:
        return None
    scene.carrier.away = set() if first else {AWAY}
    scene.supervise_runs()
    with suppress(RunVoid):
        scene.attempt()
    return scene


def one_set_or_none(scene: Scene) -> str:
    """Raise unless the run released a sum over all or over the rest, or is void and says why."""
    row = scene.coordinator.context.runs.get(RUN)
    if row.state == "void":
        assert f"{AWAY}: no reply in time" in row.reason
        assert ANSWERED in row.reason
        return "void"
    assert row.state == "finished"
    repeated = {place: frames for place, frames in scene.carrier.sent.items() if len(frames) > 1}
    assert not repeated, "a request was repeated with other bytes"
    assert scene.result.figures_over in (COUNTRIES, REST)
    return "all" if scene.result.figures_over == COUNTRIES else "rest"


def ends_with_one_away(stage: Stage, stride: int, *, first: bool) -> Counter[str]:
    """Return how runs ended, one for each `stride`-th moment of a crash."""
    ends, at = Counter[str](), 1
    while scene := ended_with_one_away(stage, at, first=first):
        ends[one_set_or_none(scene)] += 1
        scene.close()
        at += stride
    return ends


def test_a_table_without_one_country_killed_at_some_moments(table: Stage) -> None:
    assert killed_everywhere(table, stride=29, first=17, away=AWAY) > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_table_without_one_country_killed_at_many_moments(table: Stage) -> None:
    assert killed_everywhere(table, stride=2, away=AWAY) > 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_without_one_country_killed_at_many_moments(training: Stage) -> None:
    assert killed_everywhere(training, stride=4, away=AWAY) > 20


def test_a_run_killed_after_its_smaller_set_was_stored_opens_that_set(
    table: Stage,
) -> None:
    """The country that was away is back, and is not asked again."""
    scene = table.scene()
    scene.carrier.away = {AWAY}
    assert scene.attempt(("exchange", 6))  # three of set-up, twice contribute, and then agree
    assert not any(place.phase == "agree" for _, place in scene.carrier.sent)
    scene.carrier.away, count = set(), len(scene.carrier.calls)
    scene.supervise_runs()
    assert not scene.attempt()
    assert scene.result.figures_over == REST
    assert scene.carrier.calls[count:] == [REST] * 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_country_that_is_back_after_a_crash_at_any_moment_costs_no_sum(
    table: Stage,
) -> None:
    ends = ends_with_one_away(table, 3, first=True)
    assert set(ends) == {"all", "rest"}, ends


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_country_gone_after_a_crash_costs_the_sum_once_others_have_answered(
    table: Stage,
) -> None:
    ends = ends_with_one_away(table, 3, first=False)
    assert set(ends) == {"all", "rest", "void"}, ends


def test_a_training_killed_in_each_of_its_rounds_ends_with_the_same_model(training: Stage) -> None:
    """Killed again and again, a few moments further each time."""
    whole, scene = undisturbed(training), training.scene()
    steps = iter(range(12, 200, 7))
    while scene.attempt(next(steps)) and not scene.over:
        scene.supervise_runs()
    assert scene.attempts > 3
    assert whole.model
    require_undisturbed_outcome(scene, whole)


def test_a_run_without_progress_is_abandoned_with_the_reason(table: Stage) -> None:
    scene = table.scene()
    for _ in range(MAX_FRUITLESS_ATTEMPTS):
        assert scene.attempt(("exchange", 1))
        scene.supervise_runs()
    row = scene.coordinator.context.runs.get(RUN)
    assert (row.state, row.attempt) == ("failed", MAX_FRUITLESS_ATTEMPTS)
    assert "5 attempts in a row" in row.reason
    assert "To do:" in row.reason
    scene.supervise_runs()
    assert scene.coordinator.context.runs.get(RUN) == row


def test_progress_allows_further_attempts(training: Stage) -> None:
    """More crashes than a run may have in a row: one between any two rounds, one in each."""
    scene = training.scene()
    deaths = [("exchange", 1), ("exchange", 6), *[("exchange", 1), ("exchange", 3)] * 2]
    for at in deaths:
        assert scene.attempt(at)
        scene.supervise_runs()
    assert not scene.attempt()
    assert scene.attempts > MAX_FRUITLESS_ATTEMPTS
    assert scene.coordinator.context.runs.get(RUN).state == "finished"


def test_a_live_attempt_is_left_alone_and_a_dead_one_is_replaced(table: Stage) -> None:
    scene = table.scene()
    opened = scene.carrier.exchange

    def looked_at(frames: Mapping[str, bytes], seconds: float) -> Mapping[str, bytes]:
        scene.supervise_runs(lost=False)
        assert scene.coordinator.context.runs.get(RUN).attempt == 1
        return opened(frames, seconds)

    scene.carrier.exchange = looked_at  # type: ignore[method-assign]
    assert scene.attempt(("exchanged", 2))
    scene.supervise_runs(lost=False)
    assert scene.coordinator.context.runs.get(RUN).attempt == 2
    assert len(scene.coordinator.flower.bundles) == 2
    assert scene.coordinator.flower.stopped == [7_001]


def test_an_attempt_that_never_began_is_replaced_in_time(table: Stage) -> None:
    scene = table.scene()
    documents = scene.coordinator.federation.documents
    scene.supervise_runs(lost=False)
    assert scene.coordinator.context.runs.get(RUN).attempt == 1
    documents.now += timedelta(seconds=30)
    scene.supervise_runs(lost=False)
    assert scene.coordinator.context.runs.get(RUN).attempt == 2


def test_newer_documents_do_not_change_the_requests(table: Stage) -> None:
    """Newer versions between two attempts: the nodes have them, and repeat their replies."""
    scene = table.scene()
    assert scene.attempt(("exchanged", 4))
    federation = scene.coordinator.federation
    federation.approved(id="another-question")
    scene.supervise_runs()
    assert not scene.attempt()
    assert all(len(frames) == 1 for frames in scene.carrier.sent.values())


def test_a_permit_withdrawn_between_two_attempts_leaves_its_country_out(table: Stage) -> None:
    scene = table.scene()
    assert scene.attempt(("exchanged", 4))
    scene.coordinator.federation.withdraw("EE", scene.study)
    scene.supervise_runs()
    assert not scene.attempt()
    result = scene.result
    assert result.countries == result.figures_over == ("DK", "NO", "PT")
    assert "The figures are sums over DK, NO, PT." in result.statement


def test_withdrawals_that_leave_too_few_countries_end_the_run_with_the_reason(
    table: Stage,
) -> None:
    scene = table.scene()
    assert scene.attempt(("exchanged", 4))
    for country in ("DK", "EE"):
        scene.coordinator.federation.withdraw(country, scene.study)
    scene.supervise_runs()
    with pytest.raises(Exception, match="EE"):
        scene.attempt()
    row = scene.coordinator.context.runs.get(RUN)
    assert row.state == "void"
    assert "DK: refused (no-permit); EE: refused (no-permit)" in row.reason


def test_an_old_bundle_submitted_by_a_stranger_executes_nothing(table: Stage) -> None:
    scene = table.scene()
    assert scene.attempt(("exchanged", 4))
    scene.supervise_runs()
    for number in (0, 1, 3, secrets.randbelow(100) + 4):
        with pytest.raises(Exception, match="may not execute"):
            run_attempt(
                scene.coordinator.home, RUN, number, scene.carrier, scene.services, seconds=1
            )
    assert not scene.attempt()
    with pytest.raises(Exception, match="may not execute"):
        run_attempt(scene.coordinator.home, RUN, 2, scene.carrier, scene.services, seconds=1)


@pytest.mark.parametrize("moment", ["publish", "published", "released"])
def test_a_result_that_was_signed_is_not_signed_again(training: Stage, moment: str) -> None:
    """Killed around its publication, and resumed an hour later, when the result would differ."""
    scene = training.scene()
    assert scene.attempt((moment, 1))
    signed = scene.result
    scene.coordinator.federation.documents.now += timedelta(hours=1)
    if not scene.over:
        scene.supervise_runs()
        assert not scene.attempt()
    assert scene.result == signed
    row = scene.coordinator.context.runs.get(RUN)
    assert (row.state, row.reason) == ("finished", "")
    kinds = Counter(scene.coordinator.log_kinds())
    assert kinds["result-released"] == kinds["study-finished"] == 1
