"""The progress bar of `study watch` on an ordinary terminal."""

import functools
import io
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from server.commands import watch

ROUNDS = 4
VOID = 3
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
    }


def a_run() -> Callable[[], dict[str, Any]]:
    looks = count()

    def look() -> dict[str, Any]:
        done = min(next(looks), ROUNDS)
        return {
            "study": "heart-admissions",
            "state": "finished" if done == ROUNDS else "running",
            "over": done == ROUNDS,
            "round": done,
            "rounds": ROUNDS,
            "epsilon": 1.0,
            "online": dict.fromkeys(COUNTRIES, True),
            "history": [a_round(number) for number in range(1, done + 1)],
            "reason": "",
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


def test_what_was_charged_and_a_void_round_stand_above_the_bar_once(screen: io.StringIO) -> None:
    watch.follow(a_run(), as_json=False)
    said = screen.getvalue()
    assert said.count("charged to each ledger") == 1
    assert "DK 80 %" in said
    assert said.count("no reply in time") == 1
