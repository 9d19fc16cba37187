"""The progress bar of `study watch` on an ordinary terminal."""

import functools
import io
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from governance.runtime.local_rpc import LocalRpcFault
from server.answers import Resumptions
from server.commands import watch
from server.commands.wording import missed_words, resumed_words
from server.errors import GONE

ROUNDS = 4
VOID = 3
RESUMED = 2
COUNTRIES = ("DK", "EE", "IE", "PT")


def a_round(number: int) -> dict[str, Any]:
    void = number == VOID
    return {
        "round": number,
        "phase": "train",
        "outcome": "void" if void else "opened",
        "seconds": 0.4,
        "opened": [] if void else list(COUNTRIES),
        "causes": {"EE": "no reply in time"} if void else {},
        "reason": "too few countries contributed" if void else "",
    }


def a_run() -> Callable[[], dict[str, Any]]:
    looks = count()

    def look() -> dict[str, Any]:
        done = min(next(looks), ROUNDS)
        return {
            "study": "heart-admissions",
            "title": "Heart admissions",
            "run": "0f" * 16,
            "flower_run": "7001",
            "state": "finished" if done == ROUNDS else "running",
            "over": done == ROUNDS,
            "round": done,
            "rounds": ROUNDS,
            "epsilon": 1.0,
            "delta": 1e-5,
            "online": dict.fromkeys(COUNTRIES, True),
            "history": [a_round(number) for number in range(1, done + 1)],
            "reason": "",
            "resumed": {"times": 2 * (done >= RESUMED), "seconds_ago": 12.2},
            "ledgers": {country: {"spent": 0.2, "left": 0.8} for country in COUNTRIES},
        }

    return look


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=80)
    monkeypatch.setattr(watch, "Progress", functools.partial(Progress, console=console))
    monkeypatch.setattr(watch, "on_terminal", lambda: True)
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.0)
    return written


def test_a_bar_a_count_and_the_countries_fit_eighty_columns(screen: io.StringIO) -> None:
    assert watch.follow(a_run(), as_json=False) == "finished"
    last = screen.getvalue().split("\r")[-1]
    assert "━━━━" in last
    assert f"{ROUNDS}/{ROUNDS}" in last
    assert " ".join(COUNTRIES) in last
    assert "…" not in last


def test_the_charge_and_a_void_round_are_printed_above_the_bar_once(screen: io.StringIO) -> None:
    watch.follow(a_run(), as_json=False)
    text = " ".join(screen.getvalue().split())
    assert text.count("charged to each ledger") == 1
    assert "DK 80 %" in text
    assert text.count("no reply in time") == 1
    assert "void too few countries contributed; EE: no reply in time (stays charged)" in text


def test_what_the_count_of_the_cohort_costs_is_printed_beside_the_study_s_epsilon(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(watch, "on_terminal", lambda: False)
    look = a_run()
    watch.follow(lambda: look() | {"cohort_count": {"epsilon": 0.5, "delta": 1e-6}}, as_json=False)
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "ε = 1, δ = 1e-05 charged to each ledger, and for the count of the cohort ε = 0.5, "
        "δ = 1e-06 more, unless it was charged before; left of this period: DK 80 %" in text
    )


def without_one() -> Callable[[], dict[str, Any]]:
    """A run whose second and third round open without EE."""
    next_status = a_run()

    def look() -> dict[str, Any]:
        status = next_status()
        for round_status in status["history"]:
            missing = round_status["round"] in (2, 3)
            round_status["outcome"], round_status["causes"] = (
                "opened",
                {"EE": "no reply in time"} if missing else {},
            )
            round_status["opened"] = [
                country for country in COUNTRIES if country not in round_status["causes"]
            ]
        return status

    return look


def test_a_missing_country_is_printed_above_the_bar_once_with_a_fix(screen: io.StringIO) -> None:
    watch.follow(without_one(), as_json=False)
    text = " ".join(screen.getvalue().split())
    assert text.count("DK IE PT 0.40 s (EE: no reply in time)") == 1
    assert text.count("ask the operator of EE for `pratique-node status`") == 1


def test_lines_name_the_countries_missing_in_each_round(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watch, "on_terminal", lambda: False)
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.0)
    watch.follow(without_one(), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    rounds = [line for line in lines if line.startswith("  round ")]
    assert ["EE: no reply in time" in line for line in rounds] == [False, True, True, False]
    assert sum("ask the operator of EE" in line for line in lines) == 1


def failing(*causes: str, opened: tuple[str, ...]) -> Callable[[], dict[str, Any]]:
    """A run in which EE fails every round; `opened` are the countries in each round's sum."""
    next_status = a_run()

    def look() -> dict[str, Any]:
        status = next_status()
        for round_status, cause in zip(status["history"], causes, strict=False):
            round_status["outcome"], round_status["causes"], round_status["opened"] = (
                "opened",
                {"EE": cause},
                list(opened),
            )
        return status

    return look


def lines_of(
    look: Callable[[], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:
    monkeypatch.setattr(watch, "on_terminal", lambda: False)
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.0)
    watch.follow(look, as_json=False)
    return capsys.readouterr().out.splitlines()


def test_a_country_that_failed_after_its_contribution_is_shown_as_in_the_sum(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = lines_of(failing("no reply in time", opened=COUNTRIES), monkeypatch, capsys)
    (first,) = [line for line in lines if line.startswith("  round   1")]
    assert first.endswith("DK EE IE PT  0.40 s  (EE, in the sum: no reply in time)")


def test_a_country_that_left_the_run_is_reported_once_as_not_coming_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    causes = ("no reply in time", GONE, GONE, GONE)
    lines = lines_of(failing(*causes, opened=("DK", "IE", "PT")), monkeypatch, capsys)
    advice = [line for line in lines if line.startswith("  to do")]
    assert ["can be back in any later round" in line for line in advice] == [True, False]
    assert ["EE is not back in this run" in line for line in advice] == [False, True]


def test_countries_that_left_and_countries_that_are_away_are_distinguished() -> None:
    assert GONE == "refused (stale)", "as the rounds put it"
    text = missed_words({"DK": "no reply in time", "EE": GONE, "PT": "no reply in time"})
    assert "DK, PT can be back" in text
    assert "EE is not back" in text


def test_a_resumption_is_printed_above_the_bar_once(screen: io.StringIO) -> None:
    watch.follow(a_run(), as_json=False)
    assert screen.getvalue().count("resumed twice, last 12 s ago") == 1


def test_a_resumption_is_printed_once_as_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watch, "on_terminal", lambda: False)
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.0)
    watch.follow(a_run(), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    (index,) = [n for n, line in enumerate(lines) if "resumed twice, last 12 s ago" in line]
    assert "round   1" in lines[index - 2]
    assert "round   2" in lines[index + 1]


def away(look: Callable[[], dict[str, Any]], *times: int) -> Callable[[], dict[str, Any]]:
    looks = count()

    def patchy() -> dict[str, Any]:
        if next(looks) in times:
            raise LocalRpcFault("Nothing answers")
        return look()

    return patchy


def test_a_coordinator_that_is_restarted_is_waited_for(screen: io.StringIO) -> None:
    assert watch.follow(away(a_run(), 1, 2, 3), as_json=False) == "finished"


def test_a_coordinator_that_was_never_there_is_not_waited_for(screen: io.StringIO) -> None:
    with pytest.raises(LocalRpcFault):
        watch.follow(away(a_run(), 0), as_json=False)


def test_a_coordinator_that_stays_away_is_not_waited_for_for_ever(
    screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "RETURN_SECONDS", 0.0)
    with pytest.raises(LocalRpcFault):
        watch.follow(away(a_run(), *range(1, 100)), as_json=False)


@pytest.mark.parametrize(
    ("times", "seconds", "words"),
    [
        (1, 0.4, "resumed once, last 0 s ago"),
        (2, 119, "resumed twice, last 119 s ago"),
        (3, 121, "resumed 3 times, last 2 minutes ago"),
        (3, 7200, "resumed 3 times, last 2 hours ago"),
        (9, 3 * 86_400, "resumed 9 times, last 3 days ago"),
    ],
)
def test_resumptions_are_described_in_words(times: int, seconds: float, words: str) -> None:
    assert resumed_words(Resumptions(times=times, seconds_ago=seconds)) == words
