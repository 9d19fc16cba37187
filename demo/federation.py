"""The parties of the demo: a coordinator, and for each country an officer and a node."""

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from demo.party import POLL_SECONDS, CommandFailed, Party, Processes
from demo.story import Story
from demo.world import Site, World

FINGERPRINT = re.compile(r"\b[a-z2-7]{4}(?:-[a-z2-7]{4}){5}\b")
ENROL_SECONDS = "60"
REQUEST_SECONDS = 60.0
"""How long a request may take to arrive after its fingerprint was printed."""
T = TypeVar("T")


@dataclass(frozen=True)
class Federation:
    """Everybody, and what they share: the world, the story, a folder for letters."""

    world: World
    story: Story
    coordinator: Party
    officers: dict[str, Party]
    nodes: dict[str, Party]

    @classmethod
    def gather(cls, world: World, story: Story, processes: Processes) -> "Federation":
        """Give everybody a folder and a passphrase."""
        coordinator = _settle("coordinator", "coordinator", "c", world, processes)
        officers = {
            code: _settle(f"officer {code}", "officer", f"o-{code}", world, processes)
            for code in world.countries
        }
        nodes = {
            code: _settle(f"node {code}", "node", f"n-{code}", world, processes)
            for code in world.countries
        }
        (world.folder / "letters").mkdir()
        return cls(world, story, coordinator, officers, nodes)

    @property
    def first(self) -> str:
        """The country whose screens the story shows."""
        return self.world.countries[0]

    @property
    def letters(self) -> Path:
        """Where files lie that people hand to each other."""
        return self.world.folder / "letters"

    def everywhere(self, act: Callable[[Site], T]) -> dict[str, T]:
        """Do something in every country at once."""
        sites = sorted(self.world.sites, key=lambda site: site.country)
        with ThreadPoolExecutor(len(sites)) as people:
            try:
                done = list(people.map(act, sites))
            except BaseException:
                self.coordinator.processes.end_all()
                raise
        return {site.country: one for site, one in zip(sites, done, strict=True)}

    def enrol(self, party: Party, country: str, role: str) -> str:
        """Let a party in: invited, its fingerprint read out and admitted; return the print."""
        invitation = self.letters / f"{country}-{role}.json"
        self.coordinator.run("invite", country, "--role", role, "--out", invitation)
        words = ("enrol", invitation, "--wait", ENROL_SECONDS)
        with party.lines(*words, unlock=True) as lines:
            found = (FINGERPRINT.search(line) for line in lines)
            fingerprint = next(match.group() for match in found if match)
            self._await_request(fingerprint)
            self.coordinator.run("admit", fingerprint)
            for _ in lines:
                pass
        return fingerprint

    def _await_request(self, fingerprint: str) -> None:
        """Wait until the coordinator has the request, which is sent after its print is shown."""
        deadline = time.monotonic() + REQUEST_SECONDS
        while not self._waits(fingerprint):
            if time.monotonic() > deadline:
                raise CommandFailed(
                    f"No request with the fingerprint {fingerprint} arrived in "
                    f"{REQUEST_SECONDS:g} seconds"
                )
            time.sleep(POLL_SECONDS)

    def _waits(self, fingerprint: str) -> bool:
        requests = self.coordinator.ask("admit", "--list")
        return any(
            one["fingerprint"] == fingerprint and one["status"] == "pending" for one in requests
        )


def _settle(name: str, role: str, home: str, world: World, processes: Processes) -> Party:
    party = Party(name, f"pratique-{role}", world.folder / "homes" / home, processes)
    party.settle()
    return party
