"""A coordinator that is killed at a moment that a test names, over real nodes that keep running.

The moments: before and after each message, before each statement and commit on the coordinator's
database, before and after the release and each step of its publication. After the kill nothing
more is done, not even cleaning up.
"""

import random
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from client.state.reply_journal import Place
from governance.documents.study import Study
from governance.results.result import MODEL_FILE, Result, read_result
from governance.trust.repository import Repository
from keys.composite import Suite
from keys.identity import VerifyKey
from protocols.private_sum.messages import read_request
from server.runs.attempt import run_attempt
from server.services.run_supervisor import supervise_runs
from tests.support.coordinator_services import Coordinator, LocalRunServices, NodesCarrier
from tests.support.documents import COUNTRIES, raw_key, study_fields, with_schedule
from tests.support.node_federation import NodeFederation

RUN = "0f" * 16
HIGH = 10**6


class Killed(BaseException):
    """The process is gone: nothing is done after this, not even cleaning up."""


Moment = int | tuple[str, int]
"""The n-th moment of all, or the n-th of a kind, counted from 1; 0 means never."""


class CoordinatorCrash:
    """Counts the moments at which the coordinator can be killed, and kills it at one of them."""

    def __init__(self) -> None:
        self.at: Moment = 0
        self.moments: Counter[str] = Counter()
        self.dead = False

    def arm(self, at: Moment) -> None:
        self.at, self.dead = at, False
        self.moments.clear()

    def reach(self, kind: str) -> None:
        self.moments[kind] += 1
        if self.dead or self.at in ((kind, self.moments[kind]), self.moments.total()):
            self.dead = True
            raise Killed


class CrashingCarrier(NodesCarrier):
    """Carries frames to the nodes and records them; can be killed before or after a message."""

    def __init__(self, federation: NodeFederation, crash: CoordinatorCrash) -> None:
        super().__init__(federation)
        self._reaper = crash
        self.sent: dict[tuple[str, Place], set[bytes]] = defaultdict(set)
        self.calls: list[tuple[str, ...]] = []
        self.away: set[str] = set()
        """Countries that get messages of set-up and none of rounds."""

    def exchange(
        self, frames: Mapping[str, bytes], seconds: float, largest_reply: int
    ) -> Mapping[str, bytes]:
        self._reaper.reach("exchange")
        self.calls.append(tuple(frames))
        for country, frame in frames.items():
            request = read_request(frame)
            self.sent[country, Place.of(request)].add(request.digest)
        reached = {
            country: frame
            for country, frame in frames.items()
            if country not in self.away or not read_request(frame).round_number
        }
        replies = super().exchange(reached, seconds, largest_reply)
        self._reaper.reach("exchanged")
        return replies


class CrashingServices(LocalRunServices):
    """The services of a daemon that can be killed before or after it answers."""

    def __init__(self, coordinator: Coordinator, crash: CoordinatorCrash) -> None:
        super().__init__(coordinator)
        self._reaper = crash

    def sign(self, message: bytes, suite: Suite) -> bytes:
        if self._reaper.dead:
            raise Killed
        return super().sign(message, suite)

    def release(self, study: str, run: str, outcome: dict[str, Any], model: bytes) -> None:
        self._reaper.reach("release")
        super().release(study, run, outcome, model)
        self._reaper.reach("released")


@dataclass
class CrashingRun:
    """A coordinator that is killed, its nodes, and one study that they have permitted."""

    coordinator: Coordinator
    study: Study
    crash: CoordinatorCrash = field(default_factory=CoordinatorCrash)
    attempts: int = 0

    def __post_init__(self) -> None:
        self.carrier = CrashingCarrier(self.coordinator.federation, self.crash)
        self.services = CrashingServices(self.coordinator, self.crash)

    def launch(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(secrets, "token_hex", lambda _: RUN)
            assert self.coordinator.ask("study_launch", name=self.study.id)["run"] == RUN

    def attempt_dies(self, at: Moment = 0) -> bool:
        """Continue the run as its current attempt, killed at that moment; return whether it was."""
        self.attempts += 1
        self.crash.arm(at)
        number = self.coordinator.context.runs.get(RUN).attempt
        with self._mortal():
            try:
                run_attempt(
                    self.coordinator.home, RUN, number, self.carrier, self.services, seconds=1
                )
            except Killed:
                return True
        return False

    @contextmanager
    def _mortal(self) -> Iterator[None]:
        """Count each statement on the coordinator's database, and publishing, as a moment."""

        def reach(connection: Connection, *_: object) -> None:
            if connection.engine.url.database == str(self.coordinator.home.database):
                self.crash.reach("statement")

        publish = Repository.add_release

        def add_release(*arguments: Any, **named: Any) -> Any:
            self.crash.reach("publish")
            result = publish(*arguments, **named)
            self.crash.reach("published")
            return result

        event.listen(Engine, "before_cursor_execute", reach)
        event.listen(Engine, "commit", reach)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Repository, "add_release", add_release)
            try:
                yield
            finally:
                event.remove(Engine, "before_cursor_execute", reach)
                event.remove(Engine, "commit", reach)

    def supervise_runs(self, *, runs_lost: bool = True) -> None:
        """Do what the daemon does when it has started."""
        supervise_runs(self.coordinator.context, runs_lost=runs_lost)

    @property
    def over(self) -> bool:
        return not self.coordinator.context.runs.unfinished()

    @property
    def result(self) -> Result:
        key = VerifyKey.from_text(raw_key(2).public.to_text())
        return read_result(self.coordinator.home.results / self.study.id, [key])

    @property
    def model(self) -> bytes:
        file = self.coordinator.home.results / self.study.id / MODEL_FILE
        return file.read_bytes() if file.exists() else b""

    def ledgers(self) -> dict[str, list[tuple[str, int]]]:
        return {
            country: sorted((e.phase, e.rdp_micro) for e in node.parts.ledger.entries())
            for country, node in self.coordinator.federation.nodes.items()
        }

    def close(self) -> None:
        self.coordinator.federation.close()


class PreparedStudy:
    """Launches runs with the same start: the same documents, and the same draws on every node.

    `agreed` changes the agreement, `changes` the study.
    """

    def __init__(
        self, folder: Path, agreed: Mapping[str, Any] | None = None, **changes: Any
    ) -> None:
        self.folder, self.count = folder, 0
        self.origin = NodeFederation(folder / "origin", changes=dict(agreed or {}))
        fields = study_fields(self.origin.documents.agreed, **changes)
        self.study = with_schedule(Study.model_validate(fields), HIGH)
        self.origin.approve(self.study)

    def launch(self) -> CrashingRun:
        self.count += 1
        federation = self.origin.copied(self.folder / f"federation-{self.count}")
        for country in COUNTRIES:
            draws = random.Random(country)  # noqa: S311 (each run must draw the same)
            federation.restart(country, entropy=draws.randbytes)
        run = CrashingRun(Coordinator(federation, self.folder / f"office-{self.count}"), self.study)
        run.launch()
        return run
