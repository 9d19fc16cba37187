"""The daemon's lock, supervision and signals; the demo runs the whole daemon."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine

from governance.errors import StorageFault
from server import daemon
from server.daemon import (
    REFRESH_AGAIN_SECONDS,
    REFRESH_SECONDS,
    RESTART_ATTEMPTS,
    _keep_fresh,
    _supervise,
    hold_daemon_lock,
)
from server.errors import CoordinatorFault
from server.home import CoordinatorHome
from server.runs.store import RunStore
from tests.support.exchange_server import now

RUN = "a" * 32
STUDY = "sha256:" + "5" * 64


def test_one_daemon_at_a_time_in_a_folder(tmp_path: Path) -> None:
    home = CoordinatorHome(tmp_path)
    with hold_daemon_lock(home):
        with pytest.raises(CoordinatorFault, match="already") as caught, hold_daemon_lock(home):
            pytest.fail("two daemons held it")
        assert "stop it first" in caught.value.fix
    with hold_daemon_lock(home):
        pass


class Flower:
    """A SuperLink that ends and restarts as a test names it."""

    def __init__(self, *faults: str | None) -> None:
        self.faults, self.starts = list(faults), 0
        self.gone: str | None = None

    def failed_process(self) -> str | None:
        return self.gone

    def restart(self) -> None:
        self.starts += 1
        if fault := self.faults.pop(0) if self.faults else None:
            raise CoordinatorFault("The Flower SuperLink did not start", why=fault)
        self.gone = None


class RecordedSessions:
    def __init__(self, fault: CoordinatorFault | None = None) -> None:
        self.opened: list[list[str]] = []
        self._fault = fault

    def open_all(self, nodes: list[str]) -> None:
        self.opened.append(nodes)
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault


class RecordedForwarding:
    """Records the calls that open and close the forwarding."""

    def __init__(self) -> None:
        self.acts: list[str] = []

    def open(self, _: object) -> None:
        self.acts.append("open")

    async def close(self) -> None:
        self.acts.append("close")


@pytest.fixture
def supervisions(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Collect, for each supervision of the runs, whether the SuperLink was a new one."""
    found: list[bool] = []
    monkeypatch.setattr(daemon, "supervise_runs", lambda _, runs_lost: found.append(runs_lost))
    monkeypatch.setattr(daemon, "CHECK_SECONDS", 0.02)
    monkeypatch.setattr(daemon, "require_guard", lambda _: None)
    return found


def context(engine: Engine, flower: Flower, sessions: RecordedSessions | None = None) -> Any:
    return SimpleNamespace(
        runs=RunStore(engine),
        superlink=flower,
        sessions=sessions or RecordedSessions(),
        enrolment=SimpleNamespace(admitted=lambda _: ["AT", "BE"]),
        clock=now,
        home=SimpleNamespace(superlink=Path("/home/superlink")),
        documents=SimpleNamespace(uses_next_keys=False),
        keys=SimpleNamespace(online_key=None, transport=SimpleNamespace(renew_due=lambda _: [])),
        note=lambda *_, **__: None,
    )


def watched(made: Any, forwarding: RecordedForwarding, until: Callable[[], bool]) -> None:
    """Supervise a coordinator until a condition holds."""

    async def act() -> None:
        stop = asyncio.Event()
        watching = asyncio.ensure_future(_supervise(made, forwarding, stop, lambda: None))  # type: ignore[arg-type]
        async with asyncio.timeout(10):
            while not until() and not watching.done():  # noqa: ASYNC110 (anything may be waited for)
                await asyncio.sleep(0.01)
        assert not stop.is_set()
        stop.set()
        await watching

    asyncio.run(act())


class RefreshedDocuments:
    """Records the threads of the refreshes, of which the first ones fail, and the waits."""

    def __init__(self, failures: int) -> None:
        self.failures, self.not_renewed = failures, ""
        self.threads: list[str] = []
        self.waits: list[float] = []

    def refresh(self) -> None:
        self.threads.append(threading.current_thread().name)
        self.not_renewed = "the disk is full" if len(self.threads) <= self.failures else ""

    async def wait(self, stop: asyncio.Event, seconds: float) -> None:
        self.waits.append(seconds)
        if len(self.waits) == 4:
            stop.set()


def test_documents_are_refreshed_in_a_thread_of_their_own_and_sooner_after_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def act() -> None:
        await _keep_fresh(documents, asyncio.Event())  # type: ignore[arg-type]

    documents = RefreshedDocuments(failures=2)
    monkeypatch.setattr(daemon, "_wait_until_set", documents.wait)
    asyncio.run(act())
    assert documents.waits == [REFRESH_AGAIN_SECONDS] * 2 + [REFRESH_SECONDS] * 2
    assert all(name.startswith("freshness") for name in documents.threads)


def test_supervision_ends_with_the_stop_event(engine: Engine, supervisions: list[bool]) -> None:
    watched(context(engine, Flower()), RecordedForwarding(), lambda: len(supervisions) > 2)
    assert supervisions[0] is True, "a new SuperLink knows no run"
    assert not any(supervisions[1:])


@pytest.mark.parametrize(
    "fault",
    [OSError(28, "No space left on device"), StorageFault("The disk is full")],
    ids=["system", "database"],
)
def test_a_disk_that_refuses_ends_no_supervision(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    lost: list[bool] = []

    def supervise(_: object, *, runs_lost: bool) -> None:
        lost.append(runs_lost)
        if len(lost) < 3:
            raise fault

    monkeypatch.setattr(daemon, "supervise_runs", supervise)
    monkeypatch.setattr(daemon, "DISK_SECONDS", 0.01)
    monkeypatch.setattr(daemon, "CHECK_SECONDS", 0.01)
    watched(context(engine, Flower()), RecordedForwarding(), lambda: len(lost) > 3)
    assert lost[:4] == [True, True, True, False], "the runs of a new SuperLink are still resumed"


@pytest.mark.parametrize("name", ["superlink", "superexec"])
def test_a_flower_process_that_died_is_restarted(
    engine: Engine, supervisions: list[bool], name: str
) -> None:
    flower, sessions, forwarding = Flower(), RecordedSessions(), RecordedForwarding()
    flower.gone = name
    watched(context(engine, flower, sessions), forwarding, lambda: len(supervisions) > 1)
    assert flower.starts == 1
    assert forwarding.acts == ["close", "open"], "nodes wait until their sessions are open"
    assert sessions.opened == [["AT", "BE"]]
    assert supervisions[:2] == [True, False]


def test_runs_are_resumed_after_each_start(engine: Engine, supervisions: list[bool]) -> None:
    flower = Flower()

    def later() -> bool:
        if len(supervisions) == 2 and not flower.starts:
            flower.gone = "superlink"
        return supervisions.count(True) == 2

    watched(context(engine, flower), RecordedForwarding(), later)
    assert flower.starts == 1


def test_a_start_that_fails_is_tried_again(engine: Engine, supervisions: list[bool]) -> None:
    flower = Flower("port taken", "port taken")
    flower.gone = "superlink"
    sessions = RecordedSessions()
    watched(context(engine, flower, sessions), RecordedForwarding(), lambda: bool(supervisions))
    assert flower.starts == RESTART_ATTEMPTS == 3
    assert len(sessions.opened) == 1


def test_a_superlink_that_dies_while_nodes_are_registered_is_restarted(
    engine: Engine, supervisions: list[bool]
) -> None:
    flower, forwarding = Flower(), RecordedForwarding()
    flower.gone = "superlink"
    sessions = RecordedSessions(CoordinatorFault("Flower refused `flwr supernode`"))
    watched(context(engine, flower, sessions), forwarding, lambda: bool(supervisions))
    assert (flower.starts, len(sessions.opened)) == (2, 2)
    assert forwarding.acts == ["close", "open"]


def test_no_call_reaches_a_flower_whose_guard_does_not_refuse(
    engine: Engine, supervisions: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise CoordinatorFault("The guard does not work", why="code of a bundle was executed")

    monkeypatch.setattr(daemon, "require_guard", fail)
    flower, forwarding = Flower(), RecordedForwarding()
    flower.gone = "superexec"
    with pytest.raises(CoordinatorFault, match="could not be restarted") as caught:
        watched(context(engine, flower), forwarding, lambda: False)
    assert "code of a bundle was executed" in caught.value.why
    assert forwarding.acts == ["close"]
    assert not supervisions


def test_the_daemon_ends_with_the_reason_if_flower_cannot_be_restarted(
    engine: Engine, supervisions: list[bool]
) -> None:
    flower = Flower(*["no memory"] * RESTART_ATTEMPTS)
    flower.gone = "superexec"
    with pytest.raises(CoordinatorFault, match="superexec ended by itself") as caught:
        watched(context(engine, flower), RecordedForwarding(), lambda: False)
    assert "no memory" in caught.value.why
    assert "superlink.log" in caught.value.fix
    assert not supervisions


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_stop_event(number: signal.Signals) -> None:
    async def act() -> None:
        stop = daemon._stop_on_signals()
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 2)

    asyncio.run(act())
