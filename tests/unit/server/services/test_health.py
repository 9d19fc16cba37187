"""Health and metrics of the coordinator: counts, ready or not and why, alive or stuck."""

import asyncio
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import generate_latest
from sqlalchemy import Engine, insert

from governance.errors import DocumentFault
from governance.runtime.database import transaction
from governance.runtime.systemd import Supervisor
from keys.certificates import Role, TransportAuthority
from server.errors import CoordinatorFault
from server.runs.store import RunState, RunStore
from server.services import health as vitals_module
from server.services.health import (
    EXCHANGE,
    WATCH,
    CoordinatorHealth,
    supervised,
)
from server.state.tables import rounds
from tests.support.exchange_server import caller, now

STUDY = "sha256:" + "5" * 64
WAIT_SECONDS = 10.0


@dataclass
class HealthContext:
    """A coordinator's context with what `check` needs."""

    engine: Engine
    folder: Path
    ahead: timedelta = timedelta(0)
    online: dict[str, bool] = field(default_factory=lambda: {"DK": True, "PL": False})
    gone: str | None = None
    fault: Exception | None = None

    def __post_init__(self) -> None:
        authority = TransportAuthority.create("danube", now())
        own = caller(authority, "ZZ", Role.COORDINATOR, hosts=("localhost",))
        self.runs, self.log = RunStore(self.engine), SimpleNamespace(size=lambda: 5)
        self.sessions = SimpleNamespace(online=lambda: self.online, disputes=lambda: ("DK",))
        self.documents = SimpleNamespace(not_renewed="")
        self.superlink = SimpleNamespace(
            failed_process=lambda: self.gone, restarts=Counter(superlink=1)
        )
        self.home = SimpleNamespace(superlink=self.folder)
        transport = SimpleNamespace(certificate=own.certificate, in_force=lambda _: authority)
        self.keys = SimpleNamespace(transport=transport)

    def clock(self) -> Any:
        return now() + self.ahead

    def view(self) -> Any:
        if self.fault:
            raise self.fault
        ends = now() + timedelta(days=2)
        return SimpleNamespace(
            countries={"DK": SimpleNamespace(expires=ends)},
            agreement=SimpleNamespace(sunset=ends),
            expires=ends,
            versions=SimpleNamespace(by_name=lambda: {"root": 1, "DK": 4}),
        )

    def round_over(
        self, number: int, outcome: str = "opened", causes: Mapping[str, str] | None = None
    ) -> None:
        row = {
            "run_id": "a" * 32,
            "round": number,
            "phase": "train",
            "outcome": outcome,
            "countries": json.dumps({"causes": dict(causes or {})}),
            "seconds": 0.7,
        }
        with transaction(self.engine) as connection:
            connection.execute(insert(rounds).values(row))


@pytest.fixture
def context(engine: Engine, tmp_path: Path) -> Any:
    return HealthContext(engine, tmp_path)


@pytest.fixture
def health(context: Any) -> CoordinatorHealth:
    new_health = CoordinatorHealth()
    new_health.check(context)
    new_health.note_supervision()
    return new_health


def bad(health: CoordinatorHealth) -> dict[str, str]:
    return {name: check.says for name, check in health.ready().items() if not check.good}


def shown(health: CoordinatorHealth) -> str:
    return generate_latest(health.metrics.registry).decode()


def test_a_coordinator_without_faults_is_ready(health: CoordinatorHealth) -> None:
    assert bad(health) == {}


def test_a_coordinator_is_not_ready_before_the_first_check() -> None:
    assert set(bad(CoordinatorHealth())) == {"flower", "documents", "certificates"}


def test_a_coordinator_that_cannot_renew_its_timestamp_is_not_ready(
    health: CoordinatorHealth, context: Any
) -> None:
    context.documents.not_renewed = "the disk is full"
    health.check(context)
    assert bad(health) == {"documents": "in force, but not renewed: the disk is full"}


def test_nodes_runs_and_log_are_shown(health: CoordinatorHealth, context: Any) -> None:
    context.runs.create("b" * 32, STUDY, now())
    context.runs.move("b" * 32, RunState.RUNNING, now())
    health.check(context)
    metrics = shown(health)
    for line in (
        'node_online{country="DK"} 1.0',
        'node_online{country="PL"} 0.0',
        'node_disputed{country="DK"} 1.0',
        'runs{state="running"} 1.0',
        'runs{state="void"} 0.0',
        'flower_restarts{process="superlink"} 1.0',
        'flower_restarts{process="superexec"} 0.0',
    ):
        assert f"pratique_coordinator_{line}" in metrics
    assert "pratique_audit_log_entries 5.0" in metrics
    assert 'pratique_document_version{document="DK"} 4.0' in metrics
    assert 'pratique_expires_timestamp_seconds{what="certificate"}' in metrics


def test_rounds_since_the_start_of_the_daemon_are_counted_once(
    engine: Engine, context: Any
) -> None:
    context.round_over(1)
    health = CoordinatorHealth()
    health.check(context)
    assert "round_seconds_count 0.0" in shown(health)
    context.round_over(2)
    context.round_over(3, "void")
    health.check(context)
    health.check(context)
    metrics = shown(health)
    assert 'rounds_total{outcome="opened"} 1.0' in metrics
    assert 'rounds_total{outcome="void"} 1.0' in metrics
    assert "round_seconds_count 2.0" in metrics


def test_a_country_that_is_missing_is_counted_each_time_and_logged_once(
    health: CoordinatorHealth, context: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for number, causes in enumerate(({"EE": "no reply in time"},) * 3 + ({},), start=1):
        context.round_over(number, causes=causes)
    health.check(context)
    context.round_over(5, causes={"EE": "refused (paused)"})
    health.check(context)
    warnings = [r for r in caplog.records if r.message == "country failed a round"]
    assert [(r.round, r.country, r.why) for r in warnings] == [  # type: ignore[attr-defined]
        (1, "EE", "no reply in time"),
        (5, "EE", "refused (paused)"),
    ]
    assert 'missed_rounds_total{country="EE"} 4.0' in shown(health)


def test_a_run_that_ends_without_a_result_is_logged_once(
    context: Any, caplog: pytest.LogCaptureFixture
) -> None:
    health = CoordinatorHealth()
    for run in ("a" * 32, "b" * 32):
        context.runs.create(run, STUDY, now())
    context.runs.move("a" * 32, RunState.VOID, now(), "before the start")
    health.check(context)
    context.runs.move("b" * 32, RunState.VOID, now(), "three rounds in a row were void")
    health.check(context)
    health.check(context)
    ended = [r for r in caplog.records if r.message == "run ended without a result"]
    assert [(r.run, r.why) for r in ended] == [("b" * 32, "three rounds in a row were void")]  # type: ignore[attr-defined]


def test_the_coordinator_is_not_ready_until_flower_is_restarted(
    health: CoordinatorHealth, context: Any
) -> None:
    context.gone = "superexec"
    health.check(context)
    assert "superexec" in bad(health)["flower"]
    context.gone = None
    health.check(context)
    assert bad(health) == {}


def test_expired_documents_are_a_fault_and_missing_ones_are_not(
    health: CoordinatorHealth, context: Any
) -> None:
    context.fault = DocumentFault("The documents have expired", why="timestamp")
    health.check(context)
    assert bad(health) == {"documents": "The documents have expired; timestamp"}
    context.fault = CoordinatorFault("There is no agreement yet")
    health.check(context)
    assert bad(health) == {}


def test_an_expired_certificate_is_a_fault(health: CoordinatorHealth, context: Any) -> None:
    context.ahead = timedelta(days=2)
    health.check(context)
    assert bad(health) == {"certificates": "expired: certificate"}


def test_a_stuck_loop_is_a_fault(health: CoordinatorHealth) -> None:
    health.progress.moved(WATCH, -1)
    assert bad(health) == {WATCH: "stuck"}
    health.note_supervision()
    health.progress.moved(EXCHANGE, -1)
    assert bad(health) == {EXCHANGE: "stuck"}


def test_a_check_shortens_the_logs_of_flower(
    health: CoordinatorHealth, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut: list[str] = []
    monkeypatch.setattr(vitals_module, "cut_foreign", lambda path: cut.append(path.name))
    health.check(context)
    assert cut == ["superlink.log", "superexec.log"]


Heard = Callable[[], list[str]]


def supervised_run(
    health: CoordinatorHealth, context: Any, folder: Path, act: Callable[[Heard], Any]
) -> list[str]:
    """Run `act` in a supervised event loop; return the last message to the service manager."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(folder / "n"))
    manager.settimeout(WAIT_SECONDS)

    def heard() -> list[str]:
        return manager.recv(4096).decode().splitlines()

    async def serve() -> None:
        environment = {"NOTIFY_SOCKET": str(folder / "n"), "WATCHDOG_USEC": "200000"}
        async with supervised(health, Supervisor(environment), context, "exchange at h:1"):
            await act(heard)

    with manager:
        asyncio.run(serve())
        last: list[str] = []
        while "STOPPING=1" not in last:
            last = heard()
        return last


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("n")


def test_the_service_manager_is_notified_of_start_heartbeats_and_end(
    health: CoordinatorHealth, context: Any, short: Path
) -> None:
    async def act(heard: Heard) -> None:
        notifications: set[str] = set()
        while not notifications >= {"READY=1", "STATUS=exchange at h:1", "WATCHDOG=1"}:
            notifications |= set(await asyncio.to_thread(heard))

    assert supervised_run(health, context, short, act) == ["STOPPING=1", "STATUS=ending"]


def test_a_stuck_event_loop_ends_the_heartbeat(
    health: CoordinatorHealth, context: Any, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vitals_module, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(vitals_module, "BEAT_SECONDS", 0.05)
    beats: list[bool] = []

    def listen(heard: Heard, over: threading.Event) -> None:
        while not over.is_set():
            beats.append("WATCHDOG=1" in heard() and EXCHANGE in health.progress.stuck())

    async def act(heard: Heard) -> None:
        over = threading.Event()
        ear = threading.Thread(target=listen, args=(heard, over))
        ear.start()
        await asyncio.sleep(0.5)
        over_hang(health)
        over.set()
        await asyncio.sleep(0.5)
        ear.join()

    supervised_run(health, context, short, act)
    assert len(beats) > 2
    assert not any(beats)


def over_hang(health: CoordinatorHealth) -> None:
    """Block the event loop until it is reported as stuck, and for several intervals more."""
    waiting = threading.Event()
    while EXCHANGE not in health.progress.stuck():
        waiting.wait(0.01)
    waiting.wait(0.6)


def test_a_fault_in_a_check_changes_nothing(
    health: CoordinatorHealth, context: Any, short: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context.sessions = None

    async def act(heard: Heard) -> None:
        while "the health check met a fault" not in caplog.text:
            await asyncio.to_thread(heard)
        while "WATCHDOG=1" not in await asyncio.to_thread(heard):
            continue

    supervised_run(health, context, short, act)
