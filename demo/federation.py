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
    """All parties, with the world, the story and the folder for files that they exchange."""

    world: World
    story: Story
    coordinator: Party
    officers: dict[str, Party]
    nodes: dict[str, Party]

    @classmethod
    def gather(cls, world: World, story: Story, processes: Processes) -> "Federation":
        """Create the folder and the passphrase of every party."""
        coordinator = _create_party("coordinator", "coordinator", "c", world, processes)
        officers = {
            code: _create_party(f"officer {code}", "officer", f"o-{code}", world, processes)
            for code in world.countries
        }
        nodes = {
            code: _create_party(f"node {code}", "node", f"n-{code}", world, processes)
            for code in world.countries
        }
        (world.folder / "letters").mkdir()
        return cls(world, story, coordinator, officers, nodes)

    @property
    def first(self) -> str:
        """The country whose output the story shows."""
        return self.world.countries[0]

    @property
    def letters(self) -> Path:
        """The folder for files that people hand to each other."""
        return self.world.folder / "letters"

    def everywhere(self, action: Callable[[Site], T]) -> dict[str, T]:
        """Run an action in every country in parallel; return the results by country."""
        sites = sorted(self.world.sites, key=lambda site: site.country)
        with ThreadPoolExecutor(len(sites)) as people:
            try:
                results = list(people.map(action, sites))
            except BaseException:
                self.coordinator.processes.end_all()
                raise
        return {site.country: result for site, result in zip(sites, results, strict=True)}

    def enrol(self, party: Party, country: str, role: str) -> str:
        """Invite a party, enrol it and admit it by its fingerprint; return the fingerprint."""
        invitation = self.letters / f"{country}-{role}.json"
        self.coordinator.run("invite", country, "--role", role, "--out", invitation)
        arguments = ("enrol", invitation, "--wait", ENROL_SECONDS)
        with party.lines(*arguments, unlock=True) as lines:
            matches = (FINGERPRINT.search(line) for line in lines)
            fingerprint = next(match.group() for match in matches if match)
            self._await_request(fingerprint)
            self.coordinator.run("admit", fingerprint)
            for _ in lines:
                pass
        return fingerprint

    def _await_request(self, fingerprint: str) -> None:
        """Wait until the coordinator has the request, which follows the printed fingerprint."""
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
            request["fingerprint"] == fingerprint and request["status"] == "pending"
            for request in requests
        )


def _create_party(name: str, role: str, home: str, world: World, processes: Processes) -> Party:
    party = Party(name, f"pratique-{role}", world.folder / "homes" / home, processes)
    party.create_passphrase()
    return party
