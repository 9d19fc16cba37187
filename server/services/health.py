"""The coordinator's health for its operator: metrics, liveness and readiness.

Everything here is about the coordinator itself: which nodes are connected, how its runs and rounds
ended, which calls it refused. The checks run at intervals, beside the daemon's work. A fault in a
check is logged and changes nothing.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime

from governance.errors import DocumentFault
from governance.runtime.health import HealthFinding, HealthReport
from governance.runtime.log_files import cut_foreign
from governance.runtime.metrics import CoordinatorMetrics
from governance.runtime.progress import Progress
from governance.runtime.systemd import Supervisor, Watchdog
from governance.trust.view import TrustedView
from keys.renewal import ends_of
from server.errors import CoordinatorFault
from server.exchange.interceptors import REASONS
from server.exchange.service import MAY_CALL
from server.runs.store import RunStore, StoredRound
from server.services.context import CoordinatorContext

EXCHANGE, WATCH = "exchange", "watch"
BEAT_SECONDS, LOOK_SECONDS = 1.0, 15.0
ANSWER_SECONDS, WATCH_SECONDS = 60.0, 900.0
"""How long the event loop may not answer, and how long one supervision of Flower and the runs may
take, before the daemon counts as stuck. Supervision may restart Flower several times."""
FLOWER = ("superlink", "superexec")
NOT_YET = HealthFinding(good=False, says="not checked yet")

_log = logging.getLogger("pratique.coordinator")


class CoordinatorHealth:
    """The coordinator's metrics, liveness and readiness. Safe to use from several threads."""

    def __init__(self) -> None:
        self.progress = Progress()
        self.metrics = CoordinatorMetrics(MAY_CALL, REASONS)
        self._findings: Mapping[str, HealthFinding] = dict.fromkeys(
            ("flower", "documents", "certificates"), NOT_YET
        )
        self._last_round: int | None = None
        self._failed_last: dict[str, set[str]] = {}
        """By run, the countries that failed its newest round."""
        self._without_result: frozenset[str] | None = None
        """The runs without a result that are known; None before the first check."""

    @property
    def report(self) -> HealthReport:
        """The report that the health endpoint serves."""
        return HealthReport(self.metrics.registry, self.live, self.ready)

    def note_supervision(self) -> None:
        """Note that the daemon supervises Flower and the runs again."""
        self.progress.moved(WATCH, WATCH_SECONDS)

    def live(self) -> dict[str, HealthFinding]:
        """Return for each loop whether it is moving or stuck."""
        stuck = self.progress.stuck()
        says = {True: "moving", False: "stuck"}
        moves = {loop: loop not in stuck for loop in (EXCHANGE, WATCH)}
        return {loop: HealthFinding(good=good, says=says[good]) for loop, good in moves.items()}

    def ready(self) -> dict[str, HealthFinding]:
        """Return whether the coordinator could execute a run now."""
        return {**self.live(), **self._findings}

    def check(self, context: CoordinatorContext) -> None:
        """Check everything once, and cut Flower's log files if they have grown."""
        for name in FLOWER:
            cut_foreign(context.home.superlink / f"{name}.log")
        self.metrics.nodes(context.sessions.online(), context.sessions.disputes())
        self.metrics.log_size(context.log.size())
        self.metrics.runs(context.runs.by_state())
        self.metrics.restarts({name: context.superlink.restarts[name] for name in FLOWER})
        self._count_rounds(context.runs)
        self._log_ended(context.runs)
        view, documents = _documents(context)
        certificates = _certificates(context)
        self.metrics.documents(*_versions_and_expiries(view, certificates))
        self._findings = {
            "flower": _flower(context.superlink.failed_process()),
            "documents": documents,
            "certificates": _in_force(certificates, context.clock()),
        }

    def _count_rounds(self, store: RunStore) -> None:
        """Count the rounds since the last check; rounds before the daemon's start do not count."""
        if self._last_round is None:
            self._last_round = store.last_round()
        for stored in store.rounds_after(self._last_round):
            self.metrics.round_over(stored.outcome, stored.seconds, stored.causes)
            self._log_failures(stored)
            self._last_round = stored.row_number

    def _log_ended(self, store: RunStore) -> None:
        """Log each run that has ended without a result since the last check."""
        ended = store.without_result()
        known = ended.keys() if self._without_result is None else self._without_result
        for run in sorted(ended.keys() - known):
            _log.warning("run ended without a result", extra={"run": run, "why": ended[run]})
        self._without_result = frozenset(ended)

    def _log_failures(self, stored: StoredRound) -> None:
        """Log each country that failed this round and not the round before."""
        before = self._failed_last.get(stored.run, set())
        for country in sorted(stored.causes.keys() - before):
            fields = {"run": stored.run, "round": stored.round, "country": country}
            _log.warning("country failed a round", extra={**fields, "why": stored.causes[country]})
        self._failed_last[stored.run] = set(stored.causes)


@asynccontextmanager
async def supervised(
    health: CoordinatorHealth, supervisor: Supervisor, context: CoordinatorContext, says: str
) -> AsyncIterator[None]:
    """Check the daemon's health inside this context, and notify the service manager."""
    watchdog = Watchdog(supervisor, health.progress.stuck)
    health.progress.moved(EXCHANGE, ANSWER_SECONDS)
    health.note_supervision()
    tasks = [
        asyncio.ensure_future(_beat(health)),
        asyncio.ensure_future(_check_forever(health, context)),
    ]
    watchdog.start()
    supervisor.ready(says)
    try:
        yield
    finally:
        supervisor.stopping()
        for task in tasks:
            task.cancel()
        await asyncio.to_thread(watchdog.close)


async def _beat(health: CoordinatorHealth) -> None:
    while True:
        health.progress.moved(EXCHANGE, ANSWER_SECONDS)
        await asyncio.sleep(BEAT_SECONDS)


async def _check_forever(health: CoordinatorHealth, context: CoordinatorContext) -> None:
    while True:
        try:
            await asyncio.to_thread(health.check, context)
        except Exception:  # noqa: BLE001 - a failed check must not end the daemon's work
            _log.exception("the health check met a fault")
        await asyncio.sleep(LOOK_SECONDS)


def _documents(context: CoordinatorContext) -> tuple[TrustedView | None, HealthFinding]:
    try:
        view, not_renewed = context.view(), context.documents.not_renewed
        says = f"in force, but not renewed: {not_renewed}" if not_renewed else "in force"
        return view, HealthFinding(good=not not_renewed, says=says)
    except CoordinatorFault:
        return None, HealthFinding(good=True, says="no agreement is signed yet")
    except DocumentFault as fault:
        return None, HealthFinding(good=False, says=fault.sentence)


def _certificates(context: CoordinatorContext) -> dict[str, datetime]:
    transport = context.keys.transport
    authority = transport.in_force(context.clock()).certificate_pem
    return {"certificate": ends_of(transport.certificate), "authority": ends_of(authority)}


def _versions_and_expiries(
    view: TrustedView | None, certificates: Mapping[str, datetime]
) -> tuple[dict[str, int], dict[str, datetime]]:
    if view is None:
        return {}, dict(certificates)
    countries = {country: documents.expires for country, documents in view.countries.items()}
    ends = {"agreement": view.agreement.sunset, "metadata": view.expires}
    return view.versions.by_name(), {**countries, **ends, **certificates}


def _in_force(certificates: Mapping[str, datetime], now: datetime) -> HealthFinding:
    expired = sorted(name for name, ends in certificates.items() if ends <= now)
    says = f"expired: {', '.join(expired)}" if expired else "in force"
    return HealthFinding(good=not expired, says=says)


def _flower(failed: str | None) -> HealthFinding:
    says = f"{failed} has ended and is being restarted" if failed else "running"
    return HealthFinding(good=failed is None, says=says)
