"""The coordinator's daemon: exchange, SuperLink, local desk, and the clockwork between them."""

import asyncio
import fcntl
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from governance.audit.events import Event, EventKind
from governance.audit.log import AuditLog
from governance.runtime.database import open_database
from governance.runtime.health import observed
from governance.runtime.local_rpc import LocalRpcServer
from governance.runtime.systemd import Supervisor
from governance.trust.repository import Repository
from keys.certificates import Role
from keys.errors import PratiqueError
from protocols.wire.signed_message import COORDINATOR
from server.errors import OperationFault
from server.exchange.call_refusals import CallRefusals
from server.exchange.documents import ExchangeDocuments
from server.exchange.forwarding import Forwarding
from server.exchange.interceptors import RefusalCounter
from server.exchange.node_sessions import NodeSessions
from server.exchange.relay import Relay
from server.exchange.service import ENDING_SECONDS, ExchangeService, serve_exchange
from server.flower.superlink import SuperLink
from server.home import HOME_VARIABLE, CoordinatorHome, CoordinatorKeys
from server.key_rotation import open_keys
from server.membership.certificates import CertificateRegister
from server.membership.enrolment import EnrolmentService
from server.runs.store import RunStore
from server.services.context import CoordinatorContext
from server.services.dispatch import request_handler
from server.services.health import CoordinatorHealth, supervised
from server.services.run_supervisor import carry_on
from server.state.tables import MIGRATIONS

REFRESH_SECONDS = 3600.0
CHECK_SECONDS = 1.0
"""How soon a dead process of Flower's, or a run that lost its carrier, is noticed."""
STARTS = 3
"""How often Flower is started in a row before the daemon gives up."""

_log = logging.getLogger("pratique.coordinator")


def now() -> datetime:
    """Return the time of the machine, UTC."""
    return datetime.now(UTC)


@contextmanager
def only_one(home: CoordinatorHome) -> Iterator[None]:
    """Hold the folder's lock. Raises OperationFault where another daemon holds it."""
    with (home.path / "daemon.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OperationFault(
                f"A coordinator is running in {home.path} already",
                fix="stop it first; `pratique-coordinator status` asks it",
            ) from error
        yield


def run_daemon(home: CoordinatorHome, passphrase: bytes, ready: Callable[[str], None]) -> None:
    """Run until SIGTERM or SIGINT; `ready` is told the exchange's address."""
    keys, settings = open_keys(home, passphrase), home.settings()
    with only_one(home):
        link = SuperLink(home.superlink, environment={HOME_VARIABLE: os.fspath(home.path)})
        health, supervisor = CoordinatorHealth(), Supervisor()
        try:
            link.start()
            with observed(settings.observe, health.shown):
                asyncio.run(_serve(home, keys, link, ready, health, supervisor))
        finally:
            link.close()
        _log.info("ended", extra={"federation": settings.federation})


async def _serve(
    home: CoordinatorHome,
    keys: CoordinatorKeys,
    link: SuperLink,
    ready: Callable[[str], None],
    health: CoordinatorHealth,
    supervisor: Supervisor,
) -> None:
    stop, forwarding = _stop_on_signals(), Forwarding()
    relay = Relay(forwarding)
    context = _context(home, keys, link, relay)
    context.sessions.start(asyncio.get_running_loop())
    await _open_to_nodes(context, forwarding)
    server, port = await serve_exchange(
        _service(context, relay),
        context.settings.listen,
        shown=keys.transport,
        clock=now,
        interceptors=[RefusalCounter(health.metrics.refused)],
    )
    rpc_server = LocalRpcServer(home.socket, request_handler(context))
    context.note(EventKind.COORDINATOR_STARTED)
    ready(f"{context.settings.address} (port {port})")
    try:
        async with supervised(
            health, supervisor, context, f"exchange at {context.settings.address}"
        ):
            await _watch_over(context, forwarding, stop, health.watched)
    finally:
        rpc_server.close()
        await server.stop(ENDING_SECONDS)
        await forwarding.close()
        context.note(EventKind.COORDINATOR_STOPPED)


async def _open_to_nodes(context: CoordinatorContext, forwarding: Forwarding) -> None:
    """Give every admitted node its seat at a SuperLink that knows none; then let calls through."""
    nodes = context.enrolment.admitted(Role.NODE)
    await asyncio.to_thread(context.sessions.open_all, nodes)
    forwarding.open(context.superlink)


def _context(
    home: CoordinatorHome, keys: CoordinatorKeys, link: SuperLink, relay: Relay
) -> CoordinatorContext:
    engine, settings = open_database(home.database, MIGRATIONS), home.settings()
    repository = Repository(home.repository)
    log = AuditLog(engine, settings.log_origin, keys.log)

    def noted(kind: EventKind, what: str) -> None:
        log.append(Event(kind=kind, at=now(), actor=COORDINATOR, subject=what))

    documents = ExchangeDocuments(
        repository,
        documents=keys.documents,
        online=keys.online,
        clock=now,
        on_change=lambda what: noted(EventKind.DOCUMENTS_PUBLISHED, what),
        later=keys.later,
    )
    return CoordinatorContext(
        home=home,
        settings=settings,
        keys=keys,
        enrolment=EnrolmentService(engine, CertificateRegister(engine, keys.transport, note=noted)),
        repository=repository,
        documents=documents,
        runs=RunStore(engine),
        log=log,
        superlink=link,
        sessions=NodeSessions(relay, link),
        clock=now,
    )


def _service(context: CoordinatorContext, relay: Relay) -> ExchangeService:
    return ExchangeService(
        register=context.enrolment.register,
        enrolments=context.enrolment,
        documents=context.documents,
        relay=relay,
        clock=now,
        on_refusal=CallRefusals(context.note, context.clock),
    )


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    return stop


async def _watch_over(
    context: CoordinatorContext,
    forwarding: Forwarding,
    stop: asyncio.Event,
    watched: Callable[[], None] = lambda: None,
) -> None:
    """Keep the documents fresh, and Flower and the runs going, until told to stop.

    `watched` is called at each turn.
    """
    refreshed, lost = 0.0, True  # a fresh SuperLink knows of no run
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        watched()
        _require_keys_in_force(context)
        if name := context.superlink.failed():
            await _start_again(context, forwarding, name)
            lost = True
        if loop.time() - refreshed > REFRESH_SECONDS or not refreshed:
            refreshed = loop.time()
            await asyncio.to_thread(_refresh, context)
            await asyncio.to_thread(_tend_transport, context)
        await asyncio.to_thread(carry_on, context, lost=lost)
        lost = False
        await _either(stop, CHECK_SECONDS)


def _require_keys_in_force(context: CoordinatorContext) -> None:
    """The new keys are taken up by a fresh start; runs are carried on after it."""
    if context.documents.superseded:
        raise OperationFault(
            "The coordinator's new keys are in force",
            why="the countries have signed the agreement that names them",
            fix="start `up` again, if systemd does not: it takes them up, and runs go on",
        )


async def _start_again(context: CoordinatorContext, forwarding: Forwarding, name: str) -> None:
    """Start both of Flower's processes anew where one has ended; nodes wait meanwhile.

    Raises OperationFault where that fails every time.
    """
    _log.warning("Flower is started again", extra={"what": f"{name} had ended"})
    await forwarding.close()
    for left in reversed(range(STARTS)):
        try:
            await asyncio.to_thread(context.superlink.restart)
            return await _open_to_nodes(context, forwarding)
        except OperationFault as fault:
            _log.warning("Flower did not start", extra={"why": str(fault), "attempts_left": left})
            last = fault
    raise OperationFault(
        f"Flower's {name} ended by itself, and Flower did not start again in {STARTS} attempts",
        why=f"{last.what}: {last.why}",
        fix="read superlink.log in the coordinator's home, then start `up` again",
    )


async def _either(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


def _tend_transport(context: CoordinatorContext) -> None:
    """Renew the exchange's own certificate, and the authority, where it is time."""
    try:
        for done in context.keys.transport.tend(context.clock()):
            context.note(done, subject=COORDINATOR)
    except PratiqueError as fault:
        _log.error("the exchange's certificate was not renewed", extra={"why": str(fault)})


def _refresh(context: CoordinatorContext) -> None:
    """Sign a new timestamp, where there is a repository yet."""
    try:
        context.repository.refresh(context.clock(), online=context.keys.online)
    except PratiqueError as fault:
        _log.info("no documents to refresh yet", extra={"why": str(fault)})
