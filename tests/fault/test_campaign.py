"""Kill every process of a federation at random moments, study after study.

The federation is the demo's: a coordinator, Flower's SuperLink and SuperExec, a server app and four
nodes, each of them a process. PRATIQUE_TEST_FEDERATION_KILLS sets the number of kills. What a node
does at each of its failpoints is tested in test_door_kills.py.
"""

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from governance.runtime.local_rpc import ask
from tests.support.process_federation import ProcessFederation, Role

pytestmark = [pytest.mark.fault, pytest.mark.timeout(3_000)]

KILLS = int(os.environ.get("PRATIQUE_TEST_FEDERATION_KILLS", "48"))
ROUNDS = 40
LONGEST_PAUSE, LONGEST_ABSENCE = 2.0, 1.0
MAX_STUDIES = 40
STEP_FIRST, STEP_SECONDS = 0.6, 60.0
"""How often a kill waits until another round is done, and how long it waits at most."""
Victim = tuple[Role, str]


@pytest.fixture
def federation() -> Iterator[ProcessFederation]:
    """Start a federation in a folder with a short name, because socket paths are limited."""
    folder = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))
    federation = ProcessFederation.started(folder / "f")
    yield federation
    federation.end()
    shutil.rmtree(folder, ignore_errors=True)


class Campaign:
    """Kills one process after another, during the runs of one federation."""

    def __init__(self, federation: ProcessFederation, seed: int) -> None:
        self.federation, self.random = federation, Random(seed)  # noqa: S311  a campaign has to be repeatable
        self.deaths: Counter[Victim] = Counter()
        self.ends: Counter[str] = Counter()
        self._next: list[Victim] = []

    def over_one_study(self, name: str) -> dict[str, Any]:
        """Propose, permit and launch a study; kill processes until its run ends; check."""
        self.federation.propose_and_permit(name, rounds=ROUNDS)
        run = self.federation.launch(name)
        while self.deaths.total() < KILLS and not self._over(name):
            self._wait_before_kill(name)
            self._kill_next()
            self._sleep(LONGEST_ABSENCE)
            self.federation.start_missing()
            self._check_meanwhile(run)
        self.federation.wait_until_over(name)
        outcome = self.federation.check(run)
        self.ends[outcome["state"]] += 1
        return outcome

    def _wait_before_kill(self, name: str) -> None:
        """Wait for a random time; in some cases wait first until the run has made progress."""
        if self.random.random() < STEP_FIRST:
            before = self.federation.state(name) or {"round": 0}
            deadline = time.monotonic() + STEP_SECONDS
            while time.monotonic() < deadline and not self._over(name):
                status = self.federation.state(name)
                if status is not None and status["round"] > before["round"]:
                    break
                time.sleep(0.1)
        self._sleep(LONGEST_PAUSE)

    def _kill_next(self) -> None:
        """Kill the next victim, and in one case of four a second process with it."""
        for _ in range(2 if self.random.random() < 0.25 else 1):
            victim = self._victim()
            if self.federation.kill(*victim):
                self.deaths[victim] += 1
                print(f"{self.deaths.total():4d} dead: {' '.join(victim)}", flush=True)

    def _victim(self) -> Victim:
        if not self._next:
            nodes = [(Role.NODE, country) for country in self.federation.countries]
            others = [(role, "") for role in Role if role is not Role.NODE]
            self._next = [*nodes, *others]
            self.random.shuffle(self._next)
        return self._next.pop()

    def _over(self, name: str) -> bool:
        status = self.federation.state(name)
        return status is not None and bool(status["over"])

    def _sleep(self, longest: float) -> None:
        time.sleep(self.random.uniform(0, longest))

    def _check_meanwhile(self, run: str) -> None:
        """Check ledger, journal and log of every node; no ledger may ever exceed its cap."""
        for country in self.federation.countries:
            self.federation.check_node(country, run)
            ledger = ask(self.federation.node(country).home / "run" / "node.sock", "status")[
                "ledger"
            ]
            assert ledger["spent_micro"] <= ledger["cap_micro"]


def test_every_run_ends_released_or_void_with_a_reason_whichever_process_is_killed(
    federation: ProcessFederation,
) -> None:
    campaign = Campaign(federation, seed=3)
    for number in count():
        if campaign.deaths.total() >= KILLS:
            break
        assert number < MAX_STUDIES
        print(number, campaign.over_one_study(f"kill-{number}"), campaign.deaths.total())
    for (role, country), deaths in sorted(campaign.deaths.items()):
        print(f"{deaths:5d}  {role} {country}")
    print(dict(campaign.ends))
    assert campaign.deaths.total() >= KILLS
    assert set(campaign.ends) <= {"finished", "void", "failed"}
    assert campaign.ends["finished"] >= 1
    if KILLS >= 16:
        assert {role for role, _ in campaign.deaths} == set(Role)
