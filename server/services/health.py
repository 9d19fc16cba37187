"""What the coordinator shows its operator of its life: counts, whether it is stuck, or ready.

Everything in here is the coordinator's own: which nodes are connected, how its runs and rounds
went, what it refused. It looks now and then, beside the daemon's work, and a fault in looking is
logged and changes nothing.
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
from server.errors import OperationFault
from server.exchange.interceptors import REASONS
from server.exchange.service import MAY_CALL
from server.runs.store import KeptRound, RunStore
from server.services.context import CoordinatorContext

EXCHANGE, WATCH = "exchange", "watch"
BEAT_SECONDS, LOOK_SECONDS = 1.0, 15.0
ANSWER_SECONDS, WATCH_SECONDS = 60.0, 900.0
"""How long the event loop may not answer, and how long one look after Flower and the runs may
take (it starts Flower anew, several times if need be), before the daemon counts as stuck."""
FLOWER = ("superlink", "superexec")
NOT_YET = HealthFinding(good=False, says="not looked at yet")

_log = logging.getLogger("pratique.coordinator")


class CoordinatorHealth:
    """The coordinator's life as its operator may see it. Safe among threads."""

    def __init__(self) -> None:
        self.progress = Progress()
        self.metrics = CoordinatorMetrics(MAY_CALL, REASONS)
        self._seen: Mapping[str, HealthFinding] = dict.fromkeys(
            ("flower", "documents", "certificates"), NOT_YET
        )
        self._last_round: int | None = None
        self._missing: dict[str, set[str]] = {}

    @property
    def shown(self) -> HealthReport:
        """What the endpoint shows."""
        return HealthReport(self.metrics.registry, self.live, self.ready)

    def watched(self) -> None:
        """Note that the daemon looks after Flower and the runs."""
        self.progress.moved(WATCH, WATCH_SECONDS)

    def live(self) -> dict[str, HealthFinding]:
        """Return whether each loop moves."""
        stuck = self.progress.stuck()
        says = {True: "moving", False: "stuck"}
        moves = {loop: loop not in stuck for loop in (EXCHANGE, WATCH)}
        return {loop: HealthFinding(good=good, says=says[good]) for loop, good in moves.items()}

    def ready(self) -> dict[str, HealthFinding]:
        """Return whether the coordinator would carry a run now."""
        return {**self.live(), **self._seen}

    def look(self, context: CoordinatorContext) -> None:
        """Look at everything once, and cut Flower's logs where they have grown."""
        for name in FLOWER:
            cut_foreign(context.home.superlink / f"{name}.log")
        self.metrics.nodes(context.sessions.online())
        self.metrics.log_size(context.log.size())
        self.metrics.runs(context.runs.by_state())
        self.metrics.restarts({name: context.superlink.restarts[name] for name in FLOWER})
        self._count_rounds(context.runs)
        view, documents = _documents(context)
        certificates = _certificates(context)
        self.metrics.documents(*_versions_and_expiries(view, certificates))
        self._seen = {
            "flower": _flower(context.superlink.failed()),
            "documents": documents,
            "certificates": _in_force(certificates, context.clock()),
        }

    def _count_rounds(self, store: RunStore) -> None:
        """Count the rounds that came since the last look; those of before the start are not."""
        if self._last_round is None:
            self._last_round = store.last_round()
        for kept in store.rounds_after(self._last_round):
            self.metrics.round_over(kept.outcome, kept.seconds, kept.causes)
            self._tell_of_missing(kept)
            self._last_round = kept.place

    def _tell_of_missing(self, kept: KeptRound) -> None:
        """Log who failed a round, once for as many rounds in a row as it does."""
        for country in sorted(kept.causes.keys() - self._missing.get(kept.run, set())):
            place = {"run": kept.run, "round": kept.round, "country": country}
            _log.warning("country failed a round", extra={**place, "why": kept.causes[country]})
        self._missing[kept.run] = set(kept.causes)


@asynccontextmanager
async def supervised(
    health: CoordinatorHealth, supervisor: Supervisor, context: CoordinatorContext, says: str
) -> AsyncIterator[None]:
    """Watch over the daemon meanwhile: beat, look, and tell the service manager."""
    watchdog = Watchdog(supervisor, health.progress.stuck)
    health.progress.moved(EXCHANGE, ANSWER_SECONDS)
    health.watched()
    tasks = [
        asyncio.ensure_future(_beat(health)),
        asyncio.ensure_future(_look_on(health, context)),
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


async def _look_on(health: CoordinatorHealth, context: CoordinatorContext) -> None:
    while True:
        try:
            await asyncio.to_thread(health.look, context)
        except Exception:  # noqa: BLE001 - what cannot be shown must not end what works
            _log.exception("the daemon could not look at itself")
        await asyncio.sleep(LOOK_SECONDS)


def _documents(context: CoordinatorContext) -> tuple[TrustedView | None, HealthFinding]:
    try:
        return context.view(), HealthFinding(good=True, says="in force")
    except OperationFault:
        return None, HealthFinding(good=True, says="no agreement is signed yet")
    except DocumentFault as fault:
        return None, HealthFinding(good=False, says=f"{fault.what}; {fault.why}")


def _certificates(context: CoordinatorContext) -> dict[str, datetime]:
    transport = context.keys.transport
    authority = transport.in_force(context.clock()).certificate_pem
    return {"certificate": ends_of(transport.certificate), "authority": ends_of(authority)}


def _versions_and_expiries(
    view: TrustedView | None, certificates: Mapping[str, datetime]
) -> tuple[dict[str, int], dict[str, datetime]]:
    if view is None:
        return {}, dict(certificates)
    countries = {country: held.expires for country, held in view.countries.items()}
    ends = {"agreement": view.agreement.sunset, "metadata": view.expires}
    return view.versions.by_name(), {**countries, **ends, **certificates}


def _in_force(certificates: Mapping[str, datetime], now: datetime) -> HealthFinding:
    expired = sorted(name for name, ends in certificates.items() if ends <= now)
    says = f"expired: {', '.join(expired)}" if expired else "in force"
    return HealthFinding(good=not expired, says=says)


def _flower(failed: str | None) -> HealthFinding:
    says = f"{failed} has ended and is started again" if failed else "running"
    return HealthFinding(good=failed is None, says=says)
