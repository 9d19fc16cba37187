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
SLOW = 3.0
"""How many times longer a round may take if a country is known to be missing."""


@pytest.fixture
def federation() -> Iterator[ProcessFederation]:
    folder = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))
    federation = ProcessFederation.started(folder, honest=2, smallest_countries=3)
    yield federation
    federation.end()
    shutil.rmtree(folder)


def test_a_node_that_is_missing_for_some_rounds_stops_no_round(
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
    without = [entry for entry in status["history"] if AWAY not in entry["opened"]]
    assert 0 < len(without) < len(status["history"]) - GONE_AFTER
    assert all(entry["causes"] == {AWAY: "no reply in time"} for entry in without)
    assert AWAY in status["history"][-1]["opened"], "it is back"
    _only_the_first_round_without_it_is_slow(status["history"], without)
    _is_named_in_the_release(federation, without)


def _only_the_first_round_without_it_is_slow(
    history: list[dict[str, Any]], without: list[dict[str, Any]]
) -> None:
    whole = median(entry["seconds"] for entry in history if AWAY in entry["opened"])
    first, *later = (entry["seconds"] for entry in without)
    print(f"whole {whole:.2f} s; without one: first {first:.2f} s, later {median(later):.2f} s")
    assert first < 2 * ABSENT_SECONDS
    assert median(later) < SLOW * whole


def _is_named_in_the_release(federation: ProcessFederation, without: list[dict[str, Any]]) -> None:
    trained = sum(entry["phase"] == "train" for entry in without)
    result = json.loads(federation.coordinator.run("result", "show", "without-one", "--json"))
    assert result["left_out"] == {AWAY: trained}
    assert result["rounds_opened"] == {"4": ROUNDS - trained, "3": trained}
    assert result["rounds_void"] == 0
    output = federation.coordinator.run("result", "show", "without-one")
    assert f"Left out: {AWAY} in {trained} rounds." in output
