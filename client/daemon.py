"""`pratique-node up`: one node, kept running beside its records until it is told to stop.

The main thread serves the coordinator's messages and reconnects with growing, jittered pauses. A
second one tends documents and records. A third answers the local desk. A signal ends all three
within seconds: a long poll is broken off, a message under way is finished first, and the node signs
off before its channel is closed.
"""

import base64
import binascii
import logging
import secrets
import signal
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from client.border.reply_timing import ReplySlots
from client.credentials.certificate_renewal import CertificateRenewal, credentials
from client.credentials.identity_keys import IdentityKeys
from client.credentials.keyring import NodeKeyring
from client.errors import OperationFault
from client.home import NodeHome, read_public
from client.node import Node
from client.settings import Enrolment, NodeSettings
from client.state.restored import Restored
from client.state.tables import MIGRATIONS
from client.status.health import SERVE, TEND, NodeHealth
from client.status.summary import LinkStatus
from client.wiring import Surroundings, build_node
from governance.runtime.credentials import Presented
from governance.runtime.database import open_database
from governance.runtime.health import observed
from governance.runtime.local_rpc import LocalRpcServer
from governance.runtime.systemd import Supervisor, Watchdog
from keys.errors import PratiqueError
from keys.identity import VerifyKey
from keys.store import KeyStore
from protocols.errors import ReasonCode
from protocols.numerics.noise import DiscreteGaussian
from protocols.private_sum.messages import refusal_reply
from protocols.wire.channel import ExchangeLink, LinkFault

SOONEST_TEND_SECONDS = 5.0
"""A coordinator that names newer documents again and again makes no node fetch more often."""
BEHIND = refusal_reply(ReasonCode.DOCUMENTS_BEHIND)
TEND_SECONDS = 30.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
FINISH_SECONDS = 3.0
"""How long a message under way may still take once the node is told to stop."""
TURN_SECONDS, WORK_SECONDS = 300.0, 3600.0
"""How long a loop that waits for the network, and one that works on records, may take for one
turn; after that the node counts as stuck."""

_log = logging.getLogger("pratique.node")
_random = secrets.SystemRandom()


class Server(Protocol):
    """What answers the coordinator's messages; `client.flower_client.FleetClient` does."""

    def serve(self, stop: threading.Event) -> None:
        """Answer until `stop` is set; raises LinkFault when the link is lost."""


class Renewal(Protocol):
    """Keeps the node's certificate current (`client.credentials.certificate_renewal`)."""

    def tend(self) -> None:
        """Renew it, if it is time."""

    def ended(self) -> str:
        """Return what to say once it has ended; nothing before that."""


Act = Callable[[], None]
Serve = Callable[[ExchangeLink, Callable[[bytes], bytes], Act, Act], Server]
"""Makes a server from a link, a frame handler, what to call once it is connected, and what to call
each time it looks for a message."""


def pause_after(failures: int, jitter: Callable[[float, float], float] = _random.uniform) -> float:
    """Return how many seconds to wait after so many failures in a row: 0.5 doubling to 30."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 10))
    return max(FIRST_PAUSE, jitter(longest / 2, longest))


class Daemon:
    """A running node."""

    def __init__(
        self,
        node: Node,
        link: ExchangeLink,
        serve: Serve,
        home: NodeHome,
        *,
        health: NodeHealth,
        supervisor: Supervisor,
        renewal: Renewal,
    ) -> None:
        self._node, self._link, self._serve, self._home = node, link, serve, home
        self._health, self._supervisor, self._renewal = health, supervisor, renewal
        self._stop, self._wake = threading.Event(), threading.Event()
        self._signed_off = threading.Event()
        self._standing = LinkStatus()
        self._tended = -SOONEST_TEND_SECONDS

    def stop(self) -> None:
        """Begin to end; returns at once, and may be called from a signal handler."""
        self._stop.set()
        self._wake.set()

    def run(self) -> None:
        """Serve until `stop`."""
        self._node.parts.record_store.refresh()
        self._node.note_start()
        self._node.prepare()
        tender = threading.Thread(target=self._tend, name="tend", daemon=True)
        closer = threading.Thread(target=self._close_when_stopped, name="close", daemon=True)
        rpc_server = LocalRpcServer(self._home.socket, self._answer)
        watchdog = Watchdog(self._supervisor, self._health.progress.stuck)
        self._turned()
        self._health.progress.moved(TEND, WORK_SECONDS)
        tender.start()
        closer.start()
        watchdog.start()
        self._supervisor.ready("connecting")
        try:
            self._serve_until_stopped()
        finally:
            self._signed_off.set()
            self._supervisor.stopping()
            self.stop()
            rpc_server.close()
            closer.join(FINISH_SECONDS)
            tender.join(FINISH_SECONDS)
            watchdog.close()
            self._node.note_stop()

    def _serve_until_stopped(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                self._turned()
                server = self._serve(self._link, self._handle, self._connected, self._turned)
                server.serve(self._stop)
                failures = 0
            except PratiqueError as fault:
                failures = self._lost(fault.what, fault.why, failures)
            except Exception as error:  # noqa: BLE001 - a node outlives what Flower may meet
                failures = self._lost(
                    "The Flower client met a fault", type(error).__name__, failures
                )

    def _lost(self, what: str, why: str, failures: int) -> int:
        """Note a lost link and wait; return how many times in a row it failed."""
        count = 0 if self._standing.connected else failures + 1
        if not self._stop.is_set():
            said = f"{what}; {why}" if why else what
            self._standing = LinkStatus(fault=self._renewal.ended() or said)
            self._health.linked(self._standing.fault)
            self._supervisor.status(self._standing.fault)
            _log.warning("link lost", extra={"what": what, "why": why})
            self._stop.wait(pause_after(count))
        return count

    def _connected(self) -> None:
        self._standing = LinkStatus(connected=True)
        self._wake.set()
        self._health.linked()
        self._supervisor.status("connected")
        _log.info("connected")

    def _turned(self) -> None:
        self._health.progress.moved(SERVE, TURN_SECONDS)

    def _handle(self, frame: bytes) -> bytes:
        self._health.progress.moved(SERVE, WORK_SECONDS)
        begun = time.monotonic()
        reply = self._node.handle(frame)
        self._health.replied(frame, reply, time.monotonic() - begun)
        if reply == BEHIND and time.monotonic() - self._tended > SOONEST_TEND_SECONDS:
            self._wake.set()  # another country's newer documents were named: fetch them now
        self._turned()
        return reply

    def _close_when_stopped(self) -> None:
        """Close the channel once the node has signed off, or takes too long over it."""
        self._stop.wait()
        self._signed_off.wait(FINISH_SECONDS)
        self._link.close()

    def _tend(self) -> None:
        while not self._stop.is_set():
            self._health.progress.moved(TEND, WORK_SECONDS)
            try:
                self._renewal.tend()
                self._node.tend()
                self._health.tended(self._node.status(self._standing))
            except Exception:  # noqa: BLE001 - tending goes on whatever happens once
                _log.exception("tending failed")
            self._tended = time.monotonic()
            self._wake.wait(TEND_SECONDS)
            self._wake.clear()

    def _answer(self, method: str, params: Mapping[str, Any]) -> Any:
        answers: dict[str, Callable[..., Any]] = {
            "status": self._status,
            "pause": self._pause,
            "resume": self._resume,
            "deliver": self._deliver,
            "approve_key": self._approve_key,
            "officer_key": self._officer_key,
            "log_entries": self._node.log_entries,
        }
        if method not in answers:
            raise OperationFault(
                f"The daemon knows no request {method[:40]!r}",
                fix="use the command of the same version as the daemon",
            )
        return answers[method](**params)

    def _status(self) -> dict[str, Any]:
        found = self._node.status(self._standing)
        self._health.saw(found)
        return found

    def _approve_key(self, country: str, fingerprint: str) -> dict[str, str]:
        key = self._node.approve_key(country, fingerprint)
        return {"country": country, "fingerprint": key.fingerprint}

    def _officer_key(self, key: str) -> dict[str, str]:
        pinned = VerifyKey.from_text(key)
        self._node.pin_officer(pinned)
        return {"fingerprint": pinned.fingerprint}

    def _pause(self, reason: str = "") -> dict[str, Any]:
        self._node.pause(reason)
        return self._status()

    def _resume(self) -> dict[str, Any]:
        self._node.resume()
        return self._status()

    def _deliver(self, bundle: str) -> dict[str, Any]:
        try:
            content = base64.b64decode(bundle, validate=True)
        except binascii.Error:
            raise OperationFault("The bundle that was handed over is not base64") from None
        own = self._node.deliver(content)
        self._wake.set()
        return {"version": own.version, "expires": own.expires.isoformat()}


def run_daemon(home: NodeHome, settings: NodeSettings, store: KeyStore) -> None:
    """Run the node in `home` until SIGTERM or SIGINT. Raises what keeps it from starting."""
    enrolment, keyring = _enrolled(settings), NodeKeyring.load(store)
    health, supervisor = NodeHealth(home, _now), Supervisor()
    with home.held(), observed(settings.observe, health.shown):
        held = credentials(home, store, _now, _random.random())
        link = _dial(enrolment, held.presented())
        node = _node(home, settings, store, link)
        node.parts.log_head.move()  # first of all: the state may be an old copy
        serve = fleet_server(keyring)
        daemon = Daemon(
            node,
            link,
            serve,
            home,
            health=health,
            supervisor=supervisor,
            renewal=CertificateRenewal(home, held, link, _now),
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: daemon.stop())
        daemon.run()


def restore_node(home: NodeHome, settings: NodeSettings, store: KeyStore) -> Restored:
    """Make the node in `home` safe after its state was put back. Raises what stands in its way."""
    enrolment = _enrolled(settings)
    with home.held():
        link = _dial(enrolment, credentials(home, store, _now).presented())
        try:
            return _node(home, settings, store, link).restore()
        except LinkFault as fault:
            raise OperationFault(fault.what, why=fault.why, fix=_LINK_FIRST) from fault
        finally:
            link.close()


def _node(home: NodeHome, settings: NodeSettings, store: KeyStore, link: ExchangeLink) -> Node:
    return build_node(
        home,
        settings,
        NodeKeyring.load(store),
        open_database(home.database, MIGRATIONS),
        identities=IdentityKeys(store),
        pinned_root=read_public(home.root, "The root of the documents", _ENROL_AGAIN),
        around=Surroundings(
            fetch=link.fetch, noise=DiscreteGaussian(), clock=_now, slots=ReplySlots()
        ),
    )


_ENROL_AGAIN = "enrol again with a new invitation"
_LINK_FIRST = (
    "restore the link and run `pratique-node restored` again. A certificate that was renewed after "
    "the copy was made looks stolen, and is refused: call the coordinator, who revokes it and "
    "invites again, and run `pratique-node enrol` first"
)


def _now() -> datetime:
    return datetime.now(UTC)


def _enrolled(settings: NodeSettings) -> Enrolment:
    if settings.enrolment is None:
        raise OperationFault(
            "This node belongs to no federation yet",
            why="it has no certificate, and no root to verify documents from",
            fix="run `pratique-node enrol INVITATION`",
        )
    return settings.enrolment


def _dial(enrolment: Enrolment, shown: Presented) -> ExchangeLink:
    return ExchangeLink(
        enrolment.exchange,
        authority=shown.authority,
        key=shown.key,
        certificate=shown.certificate,
    )


def fleet_server(keyring: NodeKeyring) -> Serve:
    """Return how a Flower client is made that signs in with this node's key."""
    from client.app import build_app  # noqa: PLC0415 - Flower takes a second to import
    from client.flower_client import FleetClient  # noqa: PLC0415

    key = load_pem_private_key(keyring.node_auth, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise OperationFault("The node's SuperLink key is of another kind", fix=_ENROL_AGAIN)

    def serve(
        link: ExchangeLink, handle: Callable[[bytes], bytes], connected: Act, turned: Act
    ) -> Server:
        app = build_app(handle)
        return FleetClient(link, key, app, on_ready=connected, on_turn=turned)

    return serve
