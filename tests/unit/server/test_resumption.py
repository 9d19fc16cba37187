"""A run killed at each moment of its life, and carried on: as if nothing had happened.

The coordinator's side dies before or after any message, any statement on its database, any word to
the daemon and any step of the release; the nodes are real, and live on. Each run must end with the
very result of a run that nobody touched, under its own id, every request repeated byte for byte,
every ledger charged once.
"""

import random
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from client.journal import Place
from governance.documents.study import Study
from governance.trust.repository import Repository
from keys.identity import VerifyKey
from protocols.encoding import digest
from protocols.private_sum.messages import read_request
from server import conduct as conducting
from server.carrying import MOST_FRUITLESS, carry_on
from server.conduct import conduct
from server.learning.release import MODEL_FILE, Result, read_result
from tests.support.documents import COUNTRIES, NOW, priced, raw_key, study_fields
from tests.support.nodes import Federation
from tests.support.offices import Coordinator, NodesCarrier, OfficeDesk

RUN = "0f" * 16
HIGH = 10**6
TRAINING = {
    "id": "who-is-ill",
    "task": {
        "kind": "train/glm",
        "family": "logistic",
        "target": "disease",
        "rounds": 3,
        "sampling_rate": 0.5,
        "learning_rate": 1.0,
        "patients": 320,
        "patients_bound": 10_000,
        "evaluation": {"held_out": 0.25, "bins": 4, "share": 0.25},
    },
    "release": {"what": "model", "keep_days": 365, "audience": "the public"},
}


class Killed(BaseException):
    """The process is gone: nothing after this is done, not even tidying up."""


Moment = int | tuple[str, int]
"""The n-th moment of all, or the n-th of a kind; counted from 1, no moment is the 0th."""


class Reaper:
    """Counts the moments at which the coordinator's side can die, and kills it at one of them."""

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


class Journey(NodesCarrier):
    """Carries frames to the nodes, dies on the way or on the way back, and remembers them all."""

    def __init__(self, federation: Federation, reaper: Reaper) -> None:
        super().__init__(federation)
        self._reaper = reaper
        self.sent: dict[tuple[str, Place], set[str]] = defaultdict(set)

    def exchange(self, frames: Mapping[str, bytes], seconds: float) -> Mapping[str, bytes]:
        self._reaper.reach("exchange")
        for country, frame in frames.items():
            self.sent[country, Place.of(read_request(frame))].add(digest(frame))
        replies = super().exchange(frames, seconds)
        self._reaper.reach("exchanged")
        return replies


class MortalDesk(OfficeDesk):
    """The way to a daemon that may die before it answers, or after."""

    def __init__(self, coordinator: Coordinator, reaper: Reaper) -> None:
        super().__init__(coordinator)
        self._reaper = reaper

    def sign(self, message: bytes) -> bytes:
        if self._reaper.dead:
            raise Killed
        return super().sign(message)

    def release(self, study: str, run: str, outcome: dict[str, Any], model: bytes) -> None:
        self._reaper.reach("release")
        super().release(study, run, outcome, model)
        self._reaper.reach("released")


@dataclass
class Scene:
    """A coordinator that dies, its nodes, and one study that they have permitted."""

    coordinator: Coordinator
    study: Study
    reaper: Reaper = field(default_factory=Reaper)
    attempts: int = 0

    def __post_init__(self) -> None:
        self.carrier = Journey(self.coordinator.federation, self.reaper)
        self.desk = MortalDesk(self.coordinator, self.reaper)

    def launch(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(secrets, "token_hex", lambda _: RUN)
            assert self.coordinator.ask("study_launch", name=self.study.id)["run"] == RUN

    def attempt(self, at: Moment = 0) -> bool:
        """Carry the run as its current attempt, killed at that moment; say whether it died."""
        self.attempts += 1
        self.reaper.arm(at)
        number = self.coordinator.office.runs.get(RUN).attempt
        with self._mortal():
            try:
                conduct(self.coordinator.home, RUN, number, self.carrier, self.desk, seconds=1)
            except Killed:
                return True
        return False

    @contextmanager
    def _mortal(self) -> Iterator[None]:
        """Let every statement on the coordinator's own database, and publishing, be a moment."""

        def reach(connection: Connection, *_: object) -> None:
            if connection.engine.url.database == str(self.coordinator.home.database):
                self.reaper.reach("statement")

        publish = Repository.add_release

        def add_release(*arguments: Any, **named: Any) -> Any:
            self.reaper.reach("publish")
            made = publish(*arguments, **named)
            self.reaper.reach("published")
            return made

        event.listen(Engine, "before_cursor_execute", reach)
        event.listen(Engine, "commit", reach)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Repository, "add_release", add_release)
            try:
                yield
            finally:
                event.remove(Engine, "before_cursor_execute", reach)
                event.remove(Engine, "commit", reach)

    def carry_on(self, *, lost: bool = True) -> None:
        """Do what the daemon does when it has started."""
        carry_on(self.coordinator.office, lost=lost)

    @property
    def over(self) -> bool:
        return not self.coordinator.office.runs.unfinished()

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
            country: sorted((e.phase, e.rdp_micro) for e in node.ledger.entries())
            for country, node in self.coordinator.federation.nodes.items()
        }

    def close(self) -> None:
        self.coordinator.federation.close()


class Stage:
    """Makes scenes that begin alike: the same papers, and the same draws on every node."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder, self.count = folder, 0
        self.origin = Federation(folder / "origin")
        fields = study_fields(self.origin.papers.agreed, **changes)
        self.study = priced(Study.model_validate(fields), HIGH)
        self.origin.papers.propose(self.study)
        for country in COUNTRIES:
            self.origin.permit(country, self.study)
        self.origin.sync()

    def scene(self) -> Scene:
        self.count += 1
        federation = self.origin.copied(self.folder / f"federation-{self.count}")
        for country in COUNTRIES:
            draws = random.Random(country)  # noqa: S311 (what is drawn must be drawn again)
            federation.restart(country, entropy=draws.randbytes)
        made = Scene(Coordinator(federation, self.folder / f"office-{self.count}"), self.study)
        made.launch()
        return made


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        @staticmethod
        def now(_: object) -> Any:
            return NOW

    monkeypatch.setattr(conducting, "datetime", Clock)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("training"), **TRAINING)


def untouched(stage: Stage) -> Scene:
    scene = stage.scene()
    assert not scene.attempt()
    return scene


def as_if_nothing_had_happened(scene: Scene, whole: Scene) -> None:
    """Raise unless the run has ended like one that nobody touched."""
    row = scene.coordinator.office.runs.get(RUN)
    assert (row.state, row.reason, row.attempt) == ("finished", "", scene.attempts)
    repeated = {place: frames for place, frames in scene.carrier.sent.items() if len(frames) > 1}
    assert not repeated, "a request was repeated with other bytes"
    assert scene.carrier.sent.keys() == whole.carrier.sent.keys()
    assert scene.ledgers() == whole.ledgers()
    found, expected = scene.result, whole.result
    assert (found.run, found.table, found.rounds_void) == (RUN, expected.table, 0)
    assert scene.model == whole.model
    kinds = Counter(scene.coordinator.log_kinds())
    assert kinds["result-released"] == kinds["study-launched"] == 1
    assert kinds["run-resumed"] == scene.attempts - 1


def killed_everywhere(stage: Stage, stride: int, first: int = 1) -> int:
    """Kill a run at every `stride`-th moment, one run each; return how many were killed."""
    whole, at = untouched(stage), first
    while True:
        scene = stage.scene()
        died = scene.attempt(at)
        if died and not scene.over:
            scene.carry_on()
            assert not scene.attempt()
        as_if_nothing_had_happened(scene, whole)
        scene.close()
        if not died:
            return (at - first) // stride
        at += stride


def test_a_table_killed_at_some_moments(table: Stage) -> None:
    assert killed_everywhere(table, stride=29, first=17) > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_table_killed_at_every_moment(table: Stage) -> None:
    assert killed_everywhere(table, stride=1) > 30


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_killed_at_every_moment(training: Stage) -> None:
    assert killed_everywhere(training, stride=1) > 60


def test_a_training_killed_in_each_of_its_rounds_ends_with_the_same_model(training: Stage) -> None:
    """Killed again and again, a few moments further each time."""
    whole, scene = untouched(training), training.scene()
    steps = iter(range(12, 200, 7))
    while scene.attempt(next(steps)):
        scene.carry_on()
    assert scene.attempts > 3
    assert whole.model
    as_if_nothing_had_happened(scene, whole)


def test_a_run_that_gets_no_further_is_given_up_with_the_reason(table: Stage) -> None:
    scene = table.scene()
    for _ in range(MOST_FRUITLESS):
        assert scene.attempt(("exchange", 1))
        scene.carry_on()
    row = scene.coordinator.office.runs.get(RUN)
    assert (row.state, row.attempt) == ("failed", MOST_FRUITLESS)
    assert "5 attempts in a row" in row.reason
    assert "To do:" in row.reason
    scene.carry_on()
    assert scene.coordinator.office.runs.get(RUN) == row


def test_progress_opens_new_attempts(training: Stage) -> None:
    """More deaths than a run may have in a row: one between any two rounds, one in each."""
    scene = training.scene()
    deaths = [("exchange", 1), ("exchange", 6), *[("exchange", 1), ("exchange", 3)] * 2]
    for at in deaths:
        assert scene.attempt(at)
        scene.carry_on()
    assert not scene.attempt()
    assert scene.attempts > MOST_FRUITLESS
    assert scene.coordinator.office.runs.get(RUN).state == "finished"


def test_a_live_attempt_is_left_alone_and_a_dead_one_followed(table: Stage) -> None:
    scene = table.scene()
    opened = scene.carrier.exchange

    def looked_at(frames: Mapping[str, bytes], seconds: float) -> Mapping[str, bytes]:
        scene.carry_on(lost=False)
        assert scene.coordinator.office.runs.get(RUN).attempt == 1
        return opened(frames, seconds)

    scene.carrier.exchange = looked_at  # type: ignore[method-assign]
    assert scene.attempt(("exchanged", 2))
    scene.carry_on(lost=False)
    assert scene.coordinator.office.runs.get(RUN).attempt == 2
    assert len(scene.coordinator.flower.bundles) == 2
    assert scene.coordinator.flower.stopped == [7_001]


def test_an_attempt_that_was_never_begun_is_followed_in_time(table: Stage) -> None:
    scene = table.scene()
    papers = scene.coordinator.federation.papers
    scene.carry_on(lost=False)
    assert scene.coordinator.office.runs.get(RUN).attempt == 1
    papers.now += timedelta(seconds=30)
    scene.carry_on(lost=False)
    assert scene.coordinator.office.runs.get(RUN).attempt == 2


def test_documents_that_moved_on_do_not_change_what_is_asked(table: Stage) -> None:
    """Newer versions between two attempts: the nodes hold them, and repeat what they said."""
    scene = table.scene()
    assert scene.attempt(("exchanged", 4))
    federation = scene.coordinator.federation
    federation.approved(id="another-question")
    scene.carry_on()
    assert not scene.attempt()
    assert all(len(frames) == 1 for frames in scene.carrier.sent.values())


def test_a_permit_withdrawn_between_two_attempts_ends_the_run_with_its_reason(
    table: Stage,
) -> None:
    scene = table.scene()
    assert scene.attempt(("exchanged", 4))
    scene.coordinator.federation.withdraw("EE", scene.study)
    scene.carry_on()
    with pytest.raises(Exception, match="EE"):
        scene.attempt()
    row = scene.coordinator.office.runs.get(RUN)
    assert row.state == "void"
    assert "EE: refused (no-permit)" in row.reason


def test_a_stranger_who_submits_the_old_bundle_carries_nothing(table: Stage) -> None:
    scene = table.scene()
    assert scene.attempt(("exchanged", 4))
    scene.carry_on()
    for number in (0, 1, 3, secrets.randbelow(100) + 4):
        with pytest.raises(Exception, match="does not carry"):
            conduct(scene.coordinator.home, RUN, number, scene.carrier, scene.desk, seconds=1)
    assert not scene.attempt()
    with pytest.raises(Exception, match="does not carry"):
        conduct(scene.coordinator.home, RUN, 2, scene.carrier, scene.desk, seconds=1)


@pytest.mark.parametrize("moment", ["publish", "published", "released"])
def test_a_result_that_was_signed_is_not_signed_again(training: Stage, moment: str) -> None:
    """Killed about its publication, and carried on an hour later, when all would read otherwise."""
    scene = training.scene()
    assert scene.attempt((moment, 1))
    signed = scene.result
    scene.coordinator.federation.papers.now += timedelta(hours=1)
    if not scene.over:
        scene.carry_on()
        assert not scene.attempt()
    assert scene.result == signed
    row = scene.coordinator.office.runs.get(RUN)
    assert (row.state, row.reason) == ("finished", "")
    assert scene.coordinator.log_kinds().count("result-released") == 1
