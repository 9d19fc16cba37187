"""The coordinator's daemon: runs the exchange, the SuperLink and the local RPC server.

It also supervises them: it restarts Flower, refreshes documents and certificates, and resumes runs.
"""

import asyncio
import fcntl
import logging
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from sqlalchemy import Engine

from governance.audit.events import Event, EventKind
from governance.audit.log import AuditLog
from governance.errors import FileFault, StorageFault
from governance.runtime.database import open_database
from governance.runtime.descriptors import descriptor_limit, raise_descriptor_limit
from governance.runtime.health import observed
from governance.runtime.local_rpc import LocalRpcServer
from governance.runtime.systemd import Supervisor
from governance.trust.repository import Repository
from keys.certificates import Role
from keys.clock import utc_now
from keys.errors import PratiqueError
from keys.store import KeyStore
from protocols.wire.signed_message import COORDINATOR
from server.errors import CoordinatorFault
from server.exchange.call_refusals import CallRefusals
from server.exchange.connection_limits import Room
from server.exchange.documents import ExchangeDocuments
from server.exchange.fencing import Fence
from server.exchange.forwarding import Forwarding
from server.exchange.interceptors import RefusalCounter
from server.exchange.node_sessions import NodeSessions
from server.exchange.relay import Relay
from server.exchange.service import ENDING_SECONDS, ExchangeService
from server.exchange.serving import serve_exchange
from server.flower.guard_check import require_guard
from server.flower.superlink import SuperLink
from server.home import HOME_VARIABLE, LOG, CoordinatorHome, CoordinatorKeys
from server.key_rotation import open_keys
from server.membership.acting_sessions import ActingSessions
from server.membership.certificates import CertificateRegister
from server.membership.enrolment import EnrolmentService
from server.runs.store import RunStore
from server.services.context import CoordinatorContext
from server.services.dispatch import request_handler
from server.services.health import CoordinatorHealth, supervised
from server.services.run_supervisor import supervise_runs
from server.state.signed_log import open_log, take_over
from server.state.tables import MIGRATIONS

REFRESH_SECONDS, REFRESH_AGAIN_SECONDS = 3600.0, 60.0
"""How often the timestamp is signed again, and how soon after a failure."""
CERTIFICATES_SECONDS = 3600.0
DISK_SECONDS = 15.0
"""How long supervision waits after the disk has refused an operation."""
CHECK_SECONDS = 1.0
"""How often the daemon checks whether a process of Flower or of a run has ended."""
RESTART_ATTEMPTS = 3
"""How many times in a row the daemon tries to restart Flower before it ends."""

_log = logging.getLogger("pratique.coordinator")


@contextmanager
def hold_daemon_lock(home: CoordinatorHome) -> Iterator[None]:
    """Hold the folder's lock. Raises CoordinatorFault if another daemon holds it."""
    with (home.path / "daemon.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CoordinatorFault(
                f"A coordinator is already running in {home.path}",
                why="it holds the folder's lock",
                fix="stop it first; `pratique-coordinator status` shows what it does",
            ) from error
        yield


def run_daemon(home: CoordinatorHome, passphrase: bytes, ready: Callable[[str], None]) -> None:
    """Run until SIGTERM or SIGINT; `ready` is called with the exchange's address."""
    raise_descriptor_limit()
    keys, settings = open_keys(home, passphrase), home.settings()
    with hold_daemon_lock(home):
        _take_over_log(home, keys, passphrase)
        superlink = SuperLink(home.superlink, environment={HOME_VARIABLE: os.fspath(home.path)})
        health, supervisor = CoordinatorHealth(), Supervisor()
        try:
            superlink.start()
            with observed(settings.observe, health.report):
                asyncio.run(_serve(home, keys, superlink, ready, health, supervisor))
        finally:
            superlink.close()
        _log.info("ended", extra={"federation": settings.federation})


def _take_over_log(home: CoordinatorHome, keys: CoordinatorKeys, passphrase: bytes) -> None:
    """Check the log before anything else. Raises LogFault if it is not as it was signed."""
    engine = open_database(home.database, MIGRATIONS)
    try:
        take_over(open_log(engine, home.settings().log_origin, keys.log), utc_now())
    finally:
        engine.dispose()
    if not keys.log.signs_heads:
        keys.log.note_signed(KeyStore.open(home.keys, passphrase), LOG)


async def _serve(
    home: CoordinatorHome,
    keys: CoordinatorKeys,
    superlink: SuperLink,
    ready: Callable[[str], None],
    health: CoordinatorHealth,
    supervisor: Supervisor,
) -> None:
    stop, forwarding = _stop_on_signals(), Forwarding()
    engine = open_database(home.database, MIGRATIONS)
    log = open_log(engine, home.settings().log_origin, keys.log)
    relay = Relay(forwarding, fence=_fence(engine, log))
    context = _context(home, keys, superlink, relay, engine, log)
    context.sessions.start(asyncio.get_running_loop())
    await _open_to_nodes(context, forwarding)
    server, port = await serve_exchange(
        _service(context, relay),
        context.settings.listen,
        credentials=keys.transport,
        clock=utc_now,
        room=Room.within(descriptor_limit(), context.settings.connections_per_address),
        inner=home.exchange_socket,
        interceptors=[RefusalCounter(health.metrics.count_refused_call)],
    )
    rpc_server = LocalRpcServer(home.socket, request_handler(context))
    context.note(EventKind.COORDINATOR_STARTED)
    ready(_reached(context.settings.address, port))
    fresh = asyncio.ensure_future(_keep_fresh(context.documents, stop))
    try:
        async with supervised(
            health, supervisor, context, f"exchange at {context.settings.address}"
        ):
            await _supervise(context, forwarding, stop, health.note_supervision)
    finally:
        fresh.cancel()
        rpc_server.close()
        await server.stop(ENDING_SECONDS)
        await forwarding.close()
        context.note(EventKind.COORDINATOR_STOPPED)


async def _open_to_nodes(context: CoordinatorContext, forwarding: Forwarding) -> None:
    """Register every admitted node with the new SuperLink, then forward calls to it.

    Meanwhile its guard must refuse a forbidden bundle. Raises CoordinatorFault if it does not.
    """
    nodes = context.enrolment.admitted(Role.NODE)
    await asyncio.gather(
        asyncio.to_thread(context.sessions.open_all, nodes),
        asyncio.to_thread(require_guard, context.superlink),
    )
    forwarding.open(context.superlink)


def _context(
    home: CoordinatorHome,
    keys: CoordinatorKeys,
    superlink: SuperLink,
    relay: Relay,
    engine: Engine,
    log: AuditLog,
) -> CoordinatorContext:
    repository, log_event = Repository(home.repository), _logging_to(log)
    documents = ExchangeDocuments(
        repository,
        document_key=keys.document_key,
        online_key=keys.online_key,
        clock=utc_now,
        on_change=lambda what: log_event(EventKind.DOCUMENTS_PUBLISHED, what),
        next_keys=keys.next_keys,
    )
    register = CertificateRegister(engine, keys.transport, note=log_event)
    return CoordinatorContext(
        home=home,
        settings=home.settings(),
        keys=keys,
        enrolment=EnrolmentService(engine, register),
        repository=repository,
        documents=documents,
        runs=RunStore(engine),
        log=log,
        superlink=superlink,
        sessions=NodeSessions(relay, superlink),
        clock=utc_now,
    )


def _logging_to(log: AuditLog) -> Callable[[EventKind, str], None]:
    def log_event(kind: EventKind, subject: str) -> None:
        log.append(Event(kind=kind, at=utc_now(), actor=COORDINATOR, subject=subject))

    return log_event


def _fence(engine: Engine, log: AuditLog) -> Fence:
    """Return the fence of the nodes' sessions, which logs each identity that two machines have."""

    def note(country: str) -> None:
        _log.warning("two machines have one identity", extra={"country": country})
        _logging_to(log)(EventKind.SESSION_DISPUTED, f"{country} {Role.NODE}")

    return Fence(ActingSessions(engine), on_dispute=note)


def _service(context: CoordinatorContext, relay: Relay) -> ExchangeService:
    return ExchangeService(
        register=context.enrolment.register,
        enrolments=context.enrolment,
        documents=context.documents,
        relay=relay,
        clock=utc_now,
        on_refusal=CallRefusals(context.note, context.clock),
    )


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    return stop


async def _supervise(
    context: CoordinatorContext,
    forwarding: Forwarding,
    stop: asyncio.Event,
    on_cycle: Callable[[], None] = lambda: None,
) -> None:
    """Renew certificates, restart Flower and resume runs when needed, until `stop` is set.

    `on_cycle` is called at the beginning of each cycle.
    """
    renewed, runs_lost = 0.0, True  # a new SuperLink knows no run
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        on_cycle()
        _require_keys_in_force(context)
        if name := context.superlink.failed_process():
            await _restart_flower(context, forwarding, name)
            runs_lost = True
        if loop.time() - renewed > CERTIFICATES_SECONDS or not renewed:
            renewed = loop.time()
            await asyncio.to_thread(_renew_transport, context)
        supervised_runs = await asyncio.to_thread(_supervise_runs, context, runs_lost)
        runs_lost = runs_lost and not supervised_runs
        await _wait_until_set(stop, CHECK_SECONDS if supervised_runs else DISK_SECONDS)


def _supervise_runs(context: CoordinatorContext, runs_lost: bool) -> bool:  # noqa: FBT001 (a fact)
    """Resume runs when needed; return False if the disk is in the way, which may pass."""
    try:
        supervise_runs(context, runs_lost=runs_lost)
        context.log.sign_rest()
    except (StorageFault, FileFault, OSError) as fault:
        _log.error("runs are not supervised", extra={"why": str(fault)})
        return False
    return True


async def _keep_fresh(documents: ExchangeDocuments, stop: asyncio.Event) -> None:
    """Sign a new timestamp regularly until `stop` is set, in a thread that nothing else uses.

    The parties stop when the timestamp expires, so no other work may delay it.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="freshness") as thread:
        while not stop.is_set():
            await asyncio.get_running_loop().run_in_executor(thread, documents.refresh)
            failed = bool(documents.not_renewed)
            await _wait_until_set(stop, REFRESH_AGAIN_SECONDS if failed else REFRESH_SECONDS)


def _require_keys_in_force(context: CoordinatorContext) -> None:
    """Raise CoordinatorFault if new keys are in force: the next start uses them."""
    if context.documents.uses_next_keys:
        raise CoordinatorFault(
            "The coordinator's new keys are in force",
            why="the countries have signed the agreement that names them",
            fix="start `up` again, if systemd does not do it; it uses the new keys and resumes "
            "the runs",
        )


async def _restart_flower(context: CoordinatorContext, forwarding: Forwarding, name: str) -> None:
    """Restart both of Flower's processes after one has ended; nodes wait meanwhile.

    Raises CoordinatorFault if every attempt fails.
    """
    _log.warning("Flower is started again", extra={"what": f"{name} had ended"})
    await forwarding.close()
    for attempts_left in reversed(range(RESTART_ATTEMPTS)):
        try:
            await asyncio.to_thread(context.superlink.restart)
            return await _open_to_nodes(context, forwarding)
        except CoordinatorFault as fault:
            details = {"why": str(fault), "attempts_left": attempts_left}
            _log.warning("Flower did not start", extra=details)
            last_fault = fault
    raise CoordinatorFault(
        f"Flower's {name} ended by itself, and Flower could not be restarted in "
        f"{RESTART_ATTEMPTS} attempts",
        why=last_fault.sentence,
        fix="read superlink.log in the coordinator's home, then start `up` again",
    )


async def _wait_until_set(event: asyncio.Event, seconds: float) -> None:
    """Return once the event is set, or after `seconds`."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


def _reached(address: str, port: int) -> str:
    """Return the exchange's address, and its port on this machine if that is another one."""
    return address if address.endswith(f":{port}") else f"{address}, port {port} of this machine"


def _renew_transport(context: CoordinatorContext) -> None:
    """Renew the exchange's certificate and the transport authority if they are due."""
    try:
        for event_kind in context.keys.transport.renew_due(context.clock()):
            context.note(event_kind, subject=COORDINATOR)
    except (PratiqueError, OSError) as fault:
        _log.error("the exchange's certificate was not renewed", extra={"why": str(fault)})
