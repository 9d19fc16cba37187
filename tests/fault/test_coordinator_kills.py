"""Kill real processes of the coordinator at random moments.

Coordinator, SuperLink, SuperExec and server app end by SIGKILL while a run is under way. Each run
must be released under its own id, every ledger must be charged exactly once, and every log must be
complete.
"""

import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.process_federation import ProcessFederation, Role

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(900)]

ROLES = [Role.SERVER_APP, Role.SUPEREXEC, Role.SUPERLINK, Role.COORDINATOR]
SEED = int(os.environ.get("PRATIQUE_KILL_SEED", "1"))
ALL_PHASES = ["evaluate", "train"]


@pytest.fixture(scope="module")
def federation() -> Iterator[ProcessFederation]:
    folder = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))
    federation = ProcessFederation.started(folder)
    yield federation
    federation.end()
    shutil.rmtree(folder)


def released(federation: ProcessFederation, name: str, run: str) -> int:
    """Wait for the end of the run and check everything; return how many attempts it took."""
    federation.start_missing()
    status = federation.wait_until_over(name)
    assert (status["state"], status["run"]) == ("finished", run), status
    checked = federation.check(run)
    assert checked["charged"] == dict.fromkeys(federation.countries, ALL_PHASES)
    assert checked["void"] == 0
    attempts: int = checked["attempts"]
    return attempts


def kill(federation: ProcessFederation, role: Role) -> bool:
    killed = bool(federation.kill(role))
    if role is Role.COORDINATOR:
        federation.start_missing()
    return killed


@pytest.mark.parametrize("role", ROLES)
def test_a_run_survives_the_death_of_each_process(
    federation: ProcessFederation, role: Role
) -> None:
    name = f"one-{role.name.lower().replace('_', '-')}"
    federation.propose_and_permit(name, rounds=4)
    run = federation.launch(name)
    federation.wait_until(name, lambda status: status["round"] >= 2 or status["over"])
    assert kill(federation, role)
    assert released(federation, name, run) == 2


def _runs(federation: ProcessFederation, role: Role, _: dict[str, Any]) -> bool:
    return bool(federation.pids(role))


def _past(number: int, state: dict[str, Any]) -> bool:
    return state["round"] > number or bool(state["over"])


def test_a_run_survives_deaths_while_it_is_set_up(federation: ProcessFederation) -> None:
    federation.propose_and_permit("set-up", rounds=3)
    run = federation.launch("set-up")
    for role in (Role.SERVER_APP, Role.COORDINATOR):
        federation.wait_until("set-up", partial(_runs, federation, role))
        assert kill(federation, role)
    assert released(federation, "set-up", run) > 1


def test_a_run_survives_many_deaths_at_any_moment(federation: ProcessFederation) -> None:
    """Kill a random process every few seconds while rounds are being made."""
    draw = random.Random(SEED)  # noqa: S311 (a test has to be repeatable)
    federation.propose_and_permit("many", rounds=12)
    run, killed = federation.launch("many"), 0
    for _ in range(10):
        before = (federation.state("many") or {"round": 0})["round"]
        federation.wait_until("many", partial(_past, before))
        time.sleep(draw.uniform(0, 2))
        if (federation.state("many") or {"over": False})["over"]:
            break
        killed += kill(federation, draw.choice(ROLES))
    assert killed > 3
    assert released(federation, "many", run) > 3


def test_a_stopped_run_stays_stopped_and_the_study_command_says_what_to_do(
    federation: ProcessFederation,
) -> None:
    federation.propose_and_permit("stopped", rounds=10)
    federation.launch("stopped")
    federation.wait_until("stopped", lambda status: status["round"] >= 1)
    assert kill(federation, Role.SERVER_APP)
    federation.wait_until("stopped", lambda status: status["resumed"]["times"] == 1)
    federation.coordinator.run("study", "stop", "stopped")
    assert kill(federation, Role.COORDINATOR)
    status = federation.wait_until_over("stopped")
    assert status["state"] == "stopped"
    output = federation.coordinator.refused("study", "launch", "stopped")
    assert "used up" in output
    assert "--reconsider" in output
