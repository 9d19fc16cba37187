"""The daemon's clockwork, piece by piece; the whole is in the demo."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine

from server import daemon
from server.daemon import STARTS, _supervise, only_one
from server.errors import CoordinatorFault
from server.home import CoordinatorHome
from server.runs.store import RunStore
from tests.support.exchange_server import now

RUN = "a" * 32
STUDY = "sha256:" + "5" * 64


def test_one_daemon_at_a_time_in_a_folder(tmp_path: Path) -> None:
    home = CoordinatorHome(tmp_path)
    with only_one(home):
        with pytest.raises(CoordinatorFault, match="already") as caught, only_one(home):
            pytest.fail("two held it")
        assert "stop it first" in caught.value.fix
    with only_one(home):
        pass


class Flower:
    """A SuperLink that ends and restarts as a test names it."""

    def __init__(self, *faults: str | None) -> None:
        self.faults, self.starts = list(faults), 0
        self.gone: str | None = None

    def failed(self) -> str | None:
        return self.gone

    def restart(self) -> None:
        self.starts += 1
        if fault := self.faults.pop(0) if self.faults else None:
            raise CoordinatorFault("The Flower SuperLink did not start", why=fault)
        self.gone = None


class Seats:
    def __init__(self, fault: CoordinatorFault | None = None) -> None:
        self.opened: list[list[str]] = []
        self._fault = fault

    def open_all(self, nodes: list[str]) -> None:
        self.opened.append(nodes)
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault


class Way:
    """What was done to the way to the SuperLink."""

    def __init__(self) -> None:
        self.acts: list[str] = []

    def open(self, _: object) -> None:
        self.acts.append("open")

    async def close(self) -> None:
        self.acts.append("close")


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the SuperLink was a new one, each time that runs were looked after."""
    found: list[bool] = []
    monkeypatch.setattr(daemon, "supervise_runs", lambda _, lost: found.append(lost))
    monkeypatch.setattr(daemon, "CHECK_SECONDS", 0.02)
    return found


def context(engine: Engine, flower: Flower, sessions: Seats | None = None) -> Any:
    return SimpleNamespace(
        runs=RunStore(engine),
        superlink=flower,
        sessions=sessions or Seats(),
        enrolment=SimpleNamespace(admitted=lambda _: ["AT", "BE"]),
        clock=now,
        home=SimpleNamespace(superlink=Path("/home/superlink")),
        repository=SimpleNamespace(refresh=lambda *_, **__: None),
        documents=SimpleNamespace(superseded=False),
        keys=SimpleNamespace(online=None, transport=SimpleNamespace(renew_due=lambda _: [])),
        note=lambda *_, **__: None,
    )


def watched(made: Any, way: Way, until: Callable[[], bool]) -> None:
    """Supervise a coordinator until a condition holds."""

    async def act() -> None:
        stop = asyncio.Event()
        watching = asyncio.ensure_future(_supervise(made, way, stop, lambda: None))  # type: ignore[arg-type]
        async with asyncio.timeout(10):
            while not until() and not watching.done():  # noqa: ASYNC110 (anything may be waited for)
                await asyncio.sleep(0.01)
        assert not stop.is_set()
        stop.set()
        await watching

    asyncio.run(act())


def test_supervision_ends_with_the_stop_event(engine: Engine, carried: list[bool]) -> None:
    watched(context(engine, Flower()), Way(), lambda: len(carried) > 2)
    assert carried[0] is True, "a fresh SuperLink knows of no run"
    assert not any(carried[1:])


@pytest.mark.parametrize("name", ["superlink", "superexec"])
def test_a_flower_process_that_died_is_started_again_in_place(
    engine: Engine, carried: list[bool], name: str
) -> None:
    flower, sessions, way = Flower(), Seats(), Way()
    flower.gone = name
    watched(context(engine, flower, sessions), way, lambda: len(carried) > 1)
    assert flower.starts == 1
    assert way.acts == ["close", "open"], "nodes wait until their sessions are open"
    assert sessions.opened == [["AT", "BE"]]
    assert carried[:2] == [True, False]


def test_runs_are_resumed_after_each_start(engine: Engine, carried: list[bool]) -> None:
    flower = Flower()

    def later() -> bool:
        if len(carried) == 2 and not flower.starts:
            flower.gone = "superlink"
        return carried.count(True) == 2

    watched(context(engine, flower), Way(), later)
    assert flower.starts == 1


def test_a_start_that_fails_is_tried_again(engine: Engine, carried: list[bool]) -> None:
    flower = Flower("port taken", "port taken")
    flower.gone = "superlink"
    sessions = Seats()
    watched(context(engine, flower, sessions), Way(), lambda: bool(carried))
    assert flower.starts == STARTS == 3
    assert len(sessions.opened) == 1


def test_a_superlink_that_dies_while_nodes_are_seated_is_started_once_more(
    engine: Engine, carried: list[bool]
) -> None:
    flower, way = Flower(), Way()
    flower.gone = "superlink"
    sessions = Seats(CoordinatorFault("Flower refused `flwr supernode`"))
    watched(context(engine, flower, sessions), way, lambda: bool(carried))
    assert (flower.starts, len(sessions.opened)) == (2, 2)
    assert way.acts == ["close", "open"]


def test_a_flower_that_never_starts_again_ends_the_daemon_with_the_reason(
    engine: Engine, carried: list[bool]
) -> None:
    flower = Flower(*["no memory"] * STARTS)
    flower.gone = "superexec"
    with pytest.raises(CoordinatorFault, match="superexec ended by itself") as caught:
        watched(context(engine, flower), Way(), lambda: False)
    assert "no memory" in caught.value.why
    assert "superlink.log" in caught.value.fix
    assert not carried


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_wish_to_stop(number: signal.Signals) -> None:
    async def act() -> None:
        stop = daemon._stop_on_signals()
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 2)

    asyncio.run(act())
