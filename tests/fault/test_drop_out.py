"""Stop one of four real node processes for some rounds: the run continues, the node returns."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from server.flower.carrier import ABSENT_SECONDS
from tests.support.process_federation import ProcessFederation, Role

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(600)]

ROUNDS, GONE_AFTER, BACK_AFTER = 16, 3, 9
AWAY = "PT"
LARGEST_SLOWDOWN = 3.0
"""How many times longer a round may take if a country is known to be missing."""


@pytest.fixture
def federation() -> Iterator[ProcessFederation]:
    folder = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))
    federation = ProcessFederation.started(folder, honest=2, smallest_countries=3)
    yield federation
    federation.end()
    shutil.rmtree(folder)


def test_a_node_that_is_missing_for_some_rounds_does_not_stop_the_run(
    federation: ProcessFederation,
) -> None:
    federation.propose_and_permit("without-one", rounds=ROUNDS)
    run = federation.launch("without-one")
    federation.wait_until("without-one", lambda status: status["round"] >= GONE_AFTER)
    assert federation.kill(Role.NODE, AWAY)
    federation.wait_until("without-one", lambda status: status["round"] >= BACK_AFTER)
    federation.start_node(AWAY)
    status = federation.wait_until_over("without-one")
    assert status["state"] == "finished", status["reason"]
    checked = federation.check(run)
    assert (checked["void"], checked["attempts"]) == (0, 1)
    assert checked["charged"] == {c: ["evaluate", "train"] for c in federation.countries}
    rounds_without_it = [entry for entry in status["history"] if AWAY not in entry["opened"]]
    assert 0 < len(rounds_without_it) < len(status["history"]) - GONE_AFTER
    assert all(entry["causes"] == {AWAY: "no reply in time"} for entry in rounds_without_it)
    assert AWAY in status["history"][-1]["opened"], "it is back"
    _require_only_first_round_slow(status["history"], rounds_without_it)
    _require_named_in_release(federation, rounds_without_it)


def _require_only_first_round_slow(
    history: list[dict[str, Any]], rounds_without_it: list[dict[str, Any]]
) -> None:
    seconds_with_all = median(entry["seconds"] for entry in history if AWAY in entry["opened"])
    first, *later = (entry["seconds"] for entry in rounds_without_it)
    print(f"with all: {seconds_with_all:.2f} s; without one: first {first:.2f} s, ", end="")
    print(f"later {median(later):.2f} s")
    assert first < 2 * ABSENT_SECONDS
    assert median(later) < LARGEST_SLOWDOWN * seconds_with_all


def _require_named_in_release(
    federation: ProcessFederation, rounds_without_it: list[dict[str, Any]]
) -> None:
    train_rounds_without_it = sum(entry["phase"] == "train" for entry in rounds_without_it)
    result = json.loads(federation.coordinator.run("result", "show", "without-one", "--json"))
    assert result["left_out"] == {AWAY: train_rounds_without_it}
    assert result["rounds_opened"] == {
        "4": ROUNDS - train_rounds_without_it,
        "3": train_rounds_without_it,
    }
    assert result["rounds_void"] == 0
    output = federation.coordinator.run("result", "show", "without-one")
    assert f"Left out: {AWAY} in {train_rounds_without_it} rounds." in output
