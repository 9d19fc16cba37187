"""`pratique-officer agent`: run the agent as a service that systemd starts, watches and stops."""

import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge
from pydantic import TypeAdapter, ValidationError

from governance.officer.agent import Agent
from governance.officer.errors import OfficerFault
from governance.officer.exchange_link import dial
from governance.officer.home import OfficerHome
from governance.officer.session import OfficerSession
from governance.officer.terminal import Terminal
from governance.runtime.descriptors import raise_descriptor_limit
from governance.runtime.files import locked
from governance.runtime.health import HealthFinding, HealthReport, observed
from governance.runtime.logs import configure, reopen_on_hangup
from governance.runtime.loopback import LoopbackAddress
from governance.runtime.progress import Progress
from governance.runtime.systemd import Supervisor, Watchdog
from keys.clock import utc_now

TURN_SECONDS = 1800.0
"""How long one turn of the agent may take, its wait included, before it counts as stuck."""
LOCK = ".agent-lock"
_random = secrets.SystemRandom()


def run_agent(home: Path, passphrase: bytes, *, observe: str | None, log_file: Path | None) -> None:
    """Run the agent until SIGTERM or SIGINT. Raises PratiqueError if it cannot start."""
    raise_descriptor_limit()
    reopen_on_hangup(configure(log_file))
    if observe is not None:
        _require_loopback(observe)
    folder, supervisor, stop = OfficerHome(home), Supervisor(), threading.Event()
    terminal = Terminal(quiet=True)

    def open_session() -> OfficerSession:
        return OfficerSession.open(folder, passphrase, terminal, utc_now, dial)

    open_session().close()  # so that a wrong passphrase is reported now and not in a day
    progress = Progress()
    agent = Agent(
        open_session,
        utc_now,
        _random.uniform,
        supervisor.status,
        turned=lambda: progress.moved("renew", TURN_SECONDS),
    )
    watchdog = Watchdog(supervisor, progress.stuck)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with _alone(folder.path), observed(observe, shown(agent)):
        supervisor.ready("the agent keeps the country's documents fresh")
        watchdog.start()
        try:
            agent.run(stop)
        finally:
            supervisor.stopping()
            watchdog.close()


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Keep a second agent of the folder out. Raises OfficerFault if there is one."""
    with (home / LOCK).open("a") as file:
        if not locked(file.fileno()):
            raise OfficerFault(
                "An agent of this folder is running",
                fix="use it, or stop it before you start another",
            )
        yield


def _require_loopback(observe: str) -> None:
    try:
        TypeAdapter(LoopbackAddress).validate_python(observe)
    except ValidationError:
        raise OfficerFault(
            f"--observe cannot be {observe!r}",
            why="everyone who reaches it can read it, so only a loopback address is allowed",
            fix="use one such as 127.0.0.1:9103",
        ) from None


def shown(agent: Agent) -> HealthReport:
    """Return the health report: when the documents expire, and the last fault."""
    registry = CollectorRegistry()
    expires = Gauge(
        "pratique_country_documents_expire_timestamp_seconds",
        "When the country's documents end, in seconds since 1970; 0 while none are signed.",
        registry=registry,
    )
    failures = Gauge(
        "pratique_agent_failures", "Renewals that failed since the last one.", registry=registry
    )
    expires.set_function(lambda: _seconds(agent))
    failures.set_function(lambda: agent.status.failures)
    return HealthReport(registry, live=dict, ready=lambda: {"documents": _finding(agent)})


def _seconds(agent: Agent) -> float:
    end = agent.status.expires
    return end.timestamp() if end else 0.0


def _finding(agent: Agent) -> HealthFinding:
    return HealthFinding(good=agent.status.well(utc_now()), says=agent.status.sentence())
