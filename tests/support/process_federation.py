"""A federation of real processes to kill, and checks that hold whatever was killed and when.

    federation = ProcessFederation.started(folder)      # all parties, and a signed agreement
    federation.propose_and_permit("kill-1", rounds=12)  # a study that every country permits
    run = federation.launch("kill-1")
    federation.kill(Role.SERVER_APP)                    # SIGKILL, as often as a test needs
    federation.kill(Role.NODE, "PT")
    federation.start_missing()                          # start killed daemons again
    federation.wait_until_over("kill-1")
    federation.check(run)                               # ledgers, journals, logs of all parties
    federation.end()

The folder's path must be short, because Unix sockets are below it.
"""

import json
import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from demo.federation import Federation
from demo.opening import COORDINATOR_SECONDS, admit_officers, sign_agreement, start_coordinator
from demo.opening import start_nodes as start_all_nodes
from demo.party import CommandFailed, Party, Processes
from demo.registers import TERMS, four_countries
from demo.story import Story
from governance.audit.note import NoteKey
from governance.audit.verify import verify_export
from governance.runtime.local_rpc import LocalRpcFault, ask

BUDGET_EPSILON = 40.0
NODE_SECONDS = 90.0
OVER_SECONDS = 600.0
LOOK_SECONDS = 0.1
CHARGED, CONTRIBUTED = "budget-charged", "sum-contributed"
ROUND_KINDS = ("round-opened", "round-void")


class Role(StrEnum):
    """The kinds of processes."""

    COORDINATOR = "pratique-coordinator"
    SUPERLINK = "flower-superlink"
    SUPEREXEC = "flower-superexec"
    SERVER_APP = "flwr-serverapp"
    NODE = "pratique-node"


class Broken(AssertionError):
    """A check failed that must hold after any kill."""


class Silent(Story):
    """A story that prints nothing."""

    def _print(self, *_: str) -> None:
        return


@dataclass
class ProcessFederation:
    """A running federation; `studies` are those permitted so far."""

    federation: Federation
    documents: Path
    studies: list[str] = field(default_factory=list)

    @classmethod
    def started(cls, folder: Path, **changes: Any) -> "ProcessFederation":
        """Start all parties, from keys to a signed agreement; this takes about half a minute.

        `changes` change the terms of the agreement.
        """
        for name in ("logs", "tmp"):
            (folder / name).mkdir(parents=True)
        terms = replace(TERMS, budget_epsilon=BUDGET_EPSILON, **changes)
        world = replace(four_countries(folder), terms=terms)
        processes = Processes(folder / "logs")
        federation = Federation.gather(world, Silent(), processes)
        try:
            start_coordinator(federation)
            admit_officers(federation)
            documents = sign_agreement(federation)
            start_all_nodes(federation)
        except BaseException:
            processes.end_all()
            raise
        return cls(federation, documents)

    @property
    def countries(self) -> tuple[str, ...]:
        """Codes of the countries."""
        return self.federation.world.countries

    @property
    def coordinator(self) -> Party:
        """The coordinator."""
        return self.federation.coordinator

    def node(self, country: str) -> Party:
        """A country's node."""
        return self.federation.nodes[country]

    def end(self) -> None:
        """End every process."""
        self.federation.coordinator.processes.end_all()

    # Studies.

    def propose_and_permit(self, name: str, *, rounds: int = 12, epsilon: float = 0.5) -> None:
        """Propose a training study of `rounds`, and have every country permit it."""
        source = self.documents / f"{self.federation.world.training}.yaml"
        text = yaml.safe_load(source.read_text(encoding="utf-8"))
        text["id"], text["task"]["rounds"] = name, rounds
        text["privacy"]["epsilon"] = epsilon
        text["task"]["average_last"] = 1 / rounds
        draft = self.documents / f"{name}.yaml"
        draft.write_text(yaml.safe_dump(text), encoding="utf-8")
        self.coordinator.run("study", "propose", draft)
        arguments = ("approve", name, "--yes", "--sentence", "Approved.")
        officers = self.federation.officers
        self.federation.everywhere(lambda site: officers[site.country].run(*arguments, unlock=True))
        self.studies.append(name)

    def launch(self, name: str) -> str:
        """Launch a study once every node is connected, and return its run's id."""
        deadline = time.monotonic() + OVER_SECONDS
        while not all(self.coordinator.ask("status")["nodes"].values()):
            if time.monotonic() > deadline:
                raise Broken("not every node has connected again")
            time.sleep(LOOK_SECONDS)
        return str(self.coordinator.ask("study", "launch", name)["run"])

    def state(self, name: str) -> dict[str, Any] | None:
        """Return the status of a study's newest run, None while the coordinator is not running."""
        try:
            status: dict[str, Any] = ask(_socket(self.coordinator), "study_status", name=name)
        except LocalRpcFault as fault:
            if "never launched" in fault.what:
                raise
            return None
        return status

    def wait_until(
        self, name: str, reached: Callable[[dict[str, Any]], bool], seconds: float = OVER_SECONDS
    ) -> dict[str, Any]:
        """Wait until `reached` is true of a run's status. Raises Broken after `seconds`."""
        deadline, status = time.monotonic() + seconds, None
        while time.monotonic() < deadline:
            status = self.state(name) or status
            if status and reached(status):
                return status
            time.sleep(LOOK_SECONDS)
        raise Broken(f"the last status of {name} is {status}")

    def wait_until_over(self, name: str, seconds: float = OVER_SECONDS) -> dict[str, Any]:
        """Wait until a run has ended."""
        return self.wait_until(name, lambda status: bool(status["over"]), seconds)

    # Kills.

    def pids(self, role: Role, country: str = "") -> list[int]:
        """Return the ids of a role's running processes; for a node, name its country."""
        party = self.node(country) if role is Role.NODE else self.coordinator
        daemon = party.processes._daemons.get(party.home)
        if daemon is None or daemon.poll() is not None:
            return []
        if role in (Role.NODE, Role.COORDINATOR):
            return [daemon.pid]
        return [pid for pid in _descendants(daemon.pid) if role in _command_line(pid)]

    def kill(self, role: Role, country: str = "") -> list[int]:
        """Kill all processes of a role with SIGKILL, but not their children; return their ids."""
        killed = self.pids(role, country)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        if role in (Role.NODE, Role.COORDINATOR) and killed:
            party = self.node(country) if role is Role.NODE else self.coordinator
            party.processes._daemons[party.home].wait()
        return killed

    def start_missing(self) -> None:
        """Start the coordinator and the nodes that are not running, and wait until they answer."""
        if not self.pids(Role.COORDINATOR):
            self.start_coordinator()
        for country in self.countries:
            if not self.pids(Role.NODE, country):
                self.start_node(country)

    def start_coordinator(self) -> None:
        """Start the coordinator; return when it answers over local RPC."""
        self.coordinator.start(
            "up", ready=lambda: _answers(self.coordinator), seconds=COORDINATOR_SECONDS
        )

    def start_node(self, country: str) -> None:
        """Start a node; return when it answers over local RPC."""
        self.node(country).start(
            "up", ready=lambda: _answers(self.node(country)), seconds=NODE_SECONDS
        )

    # Invariants.

    def check(self, run: str) -> dict[str, Any]:
        """Raise Broken unless all checks of a run hold; every daemon must be running.

        Returns how the run ended and what each country's ledger was charged for it.
        """
        charged = {country: self.check_node(country, run) for country in self.countries}
        ended = self.check_coordinator(run)
        if ended["state"] == "finished" and len(set(map(tuple, charged.values()))) != 1:
            raise Broken(f"the countries of run {run} were charged differently: {charged}")
        return {**ended, "charged": charged}

    def check_node(self, country: str, run: str) -> list[str]:
        """Check one node's ledger, journal and log; return the phases charged for the run."""
        entries = _verified_log(self.node(country))
        with _read(self.node(country).home / "state.db") as state:
            ledger = state.execute(
                "SELECT phase FROM ledger_entries WHERE run = ? ORDER BY phase", (run,)
            ).fetchall()
            sent = state.execute(
                "SELECT round FROM journal WHERE run_id = ? AND phase = 'contribute'", (run,)
            ).fetchall()
        phases = [phase for (phase,) in ledger]
        kinds = [e for e in entries if e.get("run") == run]
        _require_charged_first(country, run, kinds)
        _require_drawn_once(country, run, kinds)
        if len(phases) != len(set(phases)):
            raise Broken(f"{country} was charged twice for run {run}: {phases}")
        if sent and not {"train", "evaluate"} <= set(phases):
            raise Broken(f"{country} sent rounds of run {run} and was charged {phases}")
        return phases

    def check_coordinator(self, run: str) -> dict[str, Any]:
        """Check the coordinator's log and database for a run; return how the run ended."""
        entries = [e for e in _verified_log(self.coordinator) if e.get("run") == run]
        kinds = Counter(entry["kind"] for entry in entries)
        with _read(self.coordinator.home / "state.db") as state:
            row = state.execute(
                "SELECT state, reason, attempt FROM runs WHERE run_id = ?", (run,)
            ).fetchone()
            rounds = state.execute(
                "SELECT round, outcome FROM rounds WHERE run_id = ? ORDER BY round", (run,)
            ).fetchall()
        ended, reason, attempt = row
        released = kinds["result-released"], kinds["study-finished"]
        if {*released} != {int(ended == "finished")} or kinds["study-launched"] != 1:
            raise Broken(f"run {run} is {ended}, and logged as {dict(kinds)}")
        if kinds["run-resumed"] != attempt - 1:
            raise Broken(f"run {run} had {attempt} attempts, and the log has {dict(kinds)}")
        logged = [(e["round"], e["kind"]) for e in entries if e["kind"] in ROUND_KINDS]
        if logged != [(number, f"round-{outcome}") for number, outcome in rounds]:
            raise Broken(f"the rounds of run {run} are {rounds}, and the log has {logged}")
        if [number for number, _ in rounds] != list(range(1, len(rounds) + 1)):
            raise Broken(f"the rounds of run {run} are {rounds}")
        if ended != "finished" and not reason:
            raise Broken(f"run {run} is {ended} without a reason")
        void = sum(outcome == "void" for _, outcome in rounds)
        return {"state": ended, "reason": reason, "attempts": attempt, "void": void}


def _require_charged_first(country: str, run: str, entries: list[dict[str, Any]]) -> None:
    kinds = [entry["kind"] for entry in entries]
    if (
        kinds.count(CHARGED) > 2
        or (  # the cohort floor's count, and the run's schedule
            CONTRIBUTED in kinds and CHARGED not in kinds[: kinds.index(CONTRIBUTED)]
        )
    ):
        raise Broken(f"{country} charged run {run} too often or too late: {kinds}")


def _require_drawn_once(country: str, run: str, entries: list[dict[str, Any]]) -> None:
    drawn = Counter(entry["round"] for entry in entries if entry["kind"] == CONTRIBUTED)
    if twice := [number for number, count in drawn.items() if count > 1]:
        raise Broken(f"{country} drew rounds {twice} of run {run} more than once")


def _verified_log(party: Party) -> list[dict[str, Any]]:
    """Return the entries of a daemon's log. Raises LogFault if it does not verify."""
    export = ask(_socket(party), "log_entries")
    lines = [line.encode() for line in export["entries"]]
    verify_export(lines, export["checkpoint"].encode(), NoteKey.from_text(export["verifier"]))
    return [json.loads(line)["entry"] for line in lines]


def _socket(party: Party) -> Path:
    name = "coordinator.sock" if party.program == Role.COORDINATOR else "node.sock"
    return party.home / "run" / name


def _answers(party: Party) -> bool:
    try:
        ask(_socket(party), "status")
    except LocalRpcFault:
        return False
    return True


@contextmanager
def _read(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as state:
        yield state


def _descendants(pid: int) -> list[int]:
    descendants = []
    for child in _children(pid):
        descendants += [child, *_descendants(child)]
    return descendants


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for task in tasks for word in _text(task).split()]


def _command_line(pid: int) -> str:
    return _text(Path(f"/proc/{pid}/cmdline")).replace("\0", " ")


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


__all__ = ["Broken", "CommandFailed", "ProcessFederation", "Role"]
