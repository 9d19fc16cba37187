"""The coordinator's daemon: exchange, SuperLink, local desk, and the clockwork between them."""

import asyncio
import fcntl
import logging
import os
import signal
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from governance.audit.events import Event, EventKind
from governance.audit.log import AuditLog
from governance.database import open_database
from governance.local import Desk
from governance.trust.repository import Repository
from keys.certificates import Role
from keys.errors import PratiqueError
from protocols.carrier import FLEET_CALLS
from server.desks.answers import answers
from server.documents import ExchangeDocuments
from server.enrolment import EnrolmentDesk
from server.errors import OperationFault
from server.exchange import ENDING_SECONDS, ExchangeService, serve_exchange
from server.home import HOME_VARIABLE, CoordinatorHome, CoordinatorKeys
from server.office import ACTOR, Office
from server.refusals import Refusals
from server.relay import Relay
from server.runs import RunState, RunStore
from server.seats import Seats
from server.state import MIGRATIONS
from server.superlink import SuperLink

REFRESH_SECONDS = 3600.0
CHECK_SECONDS = 5.0
SILENCE = timedelta(seconds=60)
"""How long a run may show no progress before Flower is asked what became of it."""
FORWARD_SECONDS = 30.0
PROTOBUF = "application/protobuf"

_log = logging.getLogger("pratique.coordinator")


def log_origin(federation: str) -> str:
    """Return the name of the coordinator's audit log."""
    return f"pratique/{federation}/coordinator"


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
    keys, settings = CoordinatorKeys.open(home, passphrase), home.settings()
    with only_one(home):
        link = SuperLink(home.superlink, environment={HOME_VARIABLE: os.fspath(home.path)})
        try:
            link.start()
            asyncio.run(_serve(home, keys, link, ready))
        finally:
            link.close()
        _log.info("ended", extra={"federation": settings.federation})


async def _serve(
    home: CoordinatorHome, keys: CoordinatorKeys, link: SuperLink, ready: Callable[[str], None]
) -> None:
    stop = _stop_on_signals()
    async with _flower_client(link) as client:
        relay = Relay(_forward_by(client))
        office = _office(home, keys, link, relay)
        office.seats.open(asyncio.get_running_loop())
        await asyncio.to_thread(office.seats.seat_all, office.enrolment.admitted(Role.NODE))
        _end_orphans(office)
        server, port = await serve_exchange(
            _service(office, relay),
            office.settings.listen,
            key=keys.transport_key,
            certificate=keys.transport_certificate,
            authority_pem=keys.authority.certificate_pem,
        )
        desk = Desk(home.socket, answers(office))
        office.note(EventKind.COORDINATOR_STARTED)
        ready(f"{office.settings.address} (port {port})")
        try:
            await _watch_over(office, stop)
        finally:
            desk.close()
            await server.stop(ENDING_SECONDS)
            office.note(EventKind.COORDINATOR_STOPPED)


def _office(home: CoordinatorHome, keys: CoordinatorKeys, link: SuperLink, relay: Relay) -> Office:
    engine, settings = open_database(home.database, MIGRATIONS), home.settings()
    repository = Repository(home.repository)
    log = AuditLog(engine, log_origin(settings.federation), keys.log)

    def noted(kind: EventKind, what: str) -> None:
        log.append(Event(kind=kind, at=now(), actor=ACTOR, subject=what))

    documents = ExchangeDocuments(
        repository,
        documents=keys.documents,
        online=keys.online,
        clock=now,
        on_change=lambda what: noted(EventKind.DOCUMENTS_PUBLISHED, what),
    )
    return Office(
        home=home,
        settings=settings,
        keys=keys,
        enrolment=EnrolmentDesk(engine, keys.authority),
        repository=repository,
        documents=documents,
        runs=RunStore(engine),
        log=log,
        superlink=link,
        seats=Seats(relay, link),
        clock=now,
    )


def _service(office: Office, relay: Relay) -> ExchangeService:
    return ExchangeService(
        authority_pem=office.keys.authority.certificate_pem,
        enrolments=office.enrolment,
        documents=office.documents,
        relay=relay,
        clock=now,
        on_refusal=Refusals(office),
    )


def _flower_client(link: SuperLink) -> httpx.AsyncClient:
    trusted = ssl.create_default_context(cafile=os.fspath(link.root_certificate))
    return httpx.AsyncClient(
        base_url=f"https://{link.address}", verify=trusted, timeout=FORWARD_SECONDS
    )


def _forward_by(client: httpx.AsyncClient) -> Any:
    async def forward(method: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        sent = {**headers, "content-type": PROTOBUF, "accept": PROTOBUF}
        path = f"/v1/fleet/{FLEET_CALLS[method]}"
        try:
            response = await client.post(path, content=body, headers=sent)
        except httpx.HTTPError:
            return httpx.codes.SERVICE_UNAVAILABLE, b""
        return response.status_code, response.content

    return forward


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    return stop


async def _watch_over(office: Office, stop: asyncio.Event) -> None:
    """Keep the documents fresh and an eye on Flower until told to stop."""
    refreshed = 0.0
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        if name := office.superlink.failed():
            raise OperationFault(
                f"Flower's {name} has ended by itself",
                fix=f"read {name}.log in {office.home.superlink}, then restart `up`",
            )
        if loop.time() - refreshed > REFRESH_SECONDS or not refreshed:
            refreshed = loop.time()
            await asyncio.to_thread(_refresh, office)
        await asyncio.to_thread(_end_abandoned, office)
        await _either(stop, CHECK_SECONDS)


async def _either(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


def _refresh(office: Office) -> None:
    """Sign a new timestamp, where there is a repository yet."""
    try:
        office.repository.refresh(office.clock(), online=office.keys.online)
    except PratiqueError as fault:
        _log.info("no documents to refresh yet", extra={"why": str(fault)})


def _end_abandoned(office: Office) -> None:
    """End the runs whose Flower run is over although they are not: their server app died."""
    silent = [r for r in office.runs.unfinished() if now() - r.updated > SILENCE]
    if not silent:
        return
    try:
        flower = {run["run-id"]: str(run["status"]) for run in office.superlink.runs()}
    except OperationFault as fault:  # a slow answer is no reason to end the coordinator
        _log.warning("Flower's runs could not be listed", extra={"why": str(fault)})
        return
    for row in silent:
        status = flower.get(row.flower_run, "unknown")
        if status.startswith("finished"):
            reason = f"its server app ended before it did (Flower says {status})"
            office.runs.move(row.run_id, RunState.FAILED, office.clock(), reason)


def _end_orphans(office: Office) -> None:
    """A run that was under way when the daemon ended has lost its carrier."""
    for row in office.runs.unfinished():
        office.runs.move(
            row.run_id, RunState.FAILED, office.clock(), "the coordinator ended during the run"
        )
