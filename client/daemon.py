"""`pratique-node up`: runs one node beside its records until a signal stops it.

The main thread answers the coordinator's messages, and reconnects after growing, jittered pauses. A
second thread does the upkeep of documents and records. A third answers the local socket. A signal
ends all three within seconds: a long poll is interrupted, a message in progress is finished first,
and the node signs off before its channel is closed.
"""

import base64
import binascii
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from client.errors import NodeFault
from client.home import NodeHome
from client.node import Node
from client.status.health import SERVE, UPKEEP, NodeHealth
from client.status.summary import LinkStatus
from governance.runtime.garbage import GarbageCollection
from governance.runtime.local_rpc import LocalRpcServer
from governance.runtime.systemd import Supervisor, Watchdog
from keys.errors import PratiqueError
from keys.identity import VerifyKey
from protocols.errors import ReasonCode
from protocols.private_sum.messages import refusal_reply
from protocols.wire.channel import ExchangeLink

MIN_UPKEEP_PAUSE_SECONDS = 5.0
"""The shortest time between two fetches, however often the coordinator names newer documents."""
BEHIND = refusal_reply(ReasonCode.DOCUMENTS_BEHIND)
UPKEEP_SECONDS = 30.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
RECORDS_PAUSE_SECONDS = 0.5
NO_RECORDS = "the records cannot be read yet; see `pratique-node doctor`"
FINISH_SECONDS = 3.0
"""How long a message in progress may still take after the signal to stop."""
CYCLE_SECONDS, WORK_SECONDS = 300.0, 3600.0
"""How long one cycle of a loop may last, if it waits for the network, or if it works on records;
after that, the node counts as stuck."""

_log = logging.getLogger("pratique.node")
_random = secrets.SystemRandom()


class Server(Protocol):
    """Answers the coordinator's messages, as `client.flower_client.FleetClient` does."""

    def serve(self, stop: threading.Event) -> None:
        """Answer until `stop` is set; raises LinkFault if the link is lost."""


class Renewal(Protocol):
    """Keeps the node's certificate current (`client.credentials.certificate_renewal`)."""

    def renew_if_due(self) -> None:
        """Renew the certificate if it is due; called while the node is signed in."""

    def ended(self) -> str:
        """Return a sentence once the certificate has expired; an empty text before."""


@dataclass(frozen=True)
class ServerHooks:
    """What a server calls: after each sign-in, before each pull of a message, and after each call.

    `on_standing` takes whether another machine has presented this node's identity.
    """

    on_ready: Callable[[], None]
    before_pull: Callable[[], None]
    on_standing: Callable[[bool], None]


MakeServer = Callable[[ExchangeLink, Callable[[bytes], bytes], ServerHooks], Server]
"""Makes a server from a link, a frame handler, and hooks."""


def pause_after(failures: int, jitter: Callable[[float, float], float] = _random.uniform) -> float:
    """Return the seconds to wait after `failures` in a row: 0.5 doubling to 30, with jitter."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 10))
    return max(FIRST_PAUSE, jitter(longest / 2, longest))


class Daemon:
    """A running node."""

    def __init__(
        self,
        node: Node,
        link: ExchangeLink,
        make_server: MakeServer,
        home: NodeHome,
        *,
        health: NodeHealth,
        supervisor: Supervisor,
        renewal: Renewal,
    ) -> None:
        self._node, self._link, self._home = node, link, home
        self._make_server = make_server
        self._health, self._supervisor, self._renewal = health, supervisor, renewal
        self._stop, self._wake = threading.Event(), threading.Event()
        self._signed_off = threading.Event()
        self._link_status = LinkStatus()
        self._hooks = ServerHooks(self._note_connected, self._note_cycle, self._note_standing)
        self._undisputed = threading.Lock()
        """Held from the first dispute on."""
        self._garbage = GarbageCollection()
        self._last_upkeep = -MIN_UPKEEP_PAUSE_SECONDS

    def stop(self) -> None:
        """Start to stop; returns at once, and may be called from a signal handler."""
        self._stop.set()
        self._wake.set()

    def run(self) -> None:
        """Run until `stop` is called."""
        self._node.parts.record_store.refresh()
        self._node.note_start()
        self._node.prepare()
        upkeep = threading.Thread(target=self._do_upkeep, name="tend", daemon=True)
        closer = threading.Thread(target=self._close_when_stopped, name="close", daemon=True)
        rpc_server = LocalRpcServer(self._home.socket, self._answer)
        watchdog = Watchdog(self._supervisor, self._health.progress.stuck)
        self._note_cycle()
        self._health.progress.moved(UPKEEP, WORK_SECONDS)
        upkeep.start()
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
            upkeep.join(FINISH_SECONDS)
            watchdog.close()
            self._node.note_stop()

    def _serve_until_stopped(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                self._note_cycle()
                if not self._node.parts.record_store.loaded:
                    self._wait_for_records()
                    continue
                self._make_server(self._link, self._handle, self._hooks).serve(self._stop)
                failures = 0
            except PratiqueError as fault:
                failures = self._wait_after_loss(fault.what, fault.why, failures)
            except Exception as error:  # noqa: BLE001 - a node survives any fault in Flower
                failures = self._wait_after_loss(
                    "An unexpected fault occurred in the Flower client",
                    type(error).__name__,
                    failures,
                )

    def _wait_for_records(self) -> None:
        """Wait before the first connection: no reply may depend on one record."""
        self._link_status = LinkStatus(fault=NO_RECORDS)
        self._health.set_link(NO_RECORDS)
        self._stop.wait(RECORDS_PAUSE_SECONDS)

    def _wait_after_loss(self, what: str, why: str, failures: int) -> int:
        """Record a lost link, and wait; return the number of failures in a row."""
        count = 0 if self._link_status.connected else failures + 1
        if not self._stop.is_set():
            sentence = f"{what}; {why}" if why else what
            why_lost = self._renewal.ended() or sentence
            self._link_status = replace(self._link_status, connected=False, fault=why_lost)
            self._health.set_link(self._link_status.fault)
            self._supervisor.status(self._link_status.fault)
            _log.warning("link lost", extra={"what": what, "why": why})
            self._stop.wait(pause_after(count))
        return count

    def _note_connected(self) -> None:
        self._link_status = replace(self._link_status, connected=True, fault="")
        self._wake.set()
        self._health.set_link()
        self._supervisor.status("connected")
        _log.info("connected")

    def _note_standing(self, disputed: bool) -> None:  # noqa: FBT001 (a hook with one value)
        """Note whether another machine has presented this node's identity; log it once.

        It is logged once in a process, however often the coordinator changes what it says.
        """
        self._link_status = replace(self._link_status, disputed=disputed)
        if disputed and self._undisputed.acquire(blocking=False):
            _log.warning("another machine has this node's identity")
            try:
                self._node.note_dispute()
            except PratiqueError as fault:
                _log.error("the audit log could not be written", extra={"why": fault.sentence})

    def _note_cycle(self) -> None:
        self._health.progress.moved(SERVE, CYCLE_SECONDS)

    def _handle(self, frame: bytes) -> bytes:
        self._health.progress.moved(SERVE, WORK_SECONDS)
        begun = time.monotonic()
        reply = self._node.handle(frame)
        self._health.count_reply(frame, reply, time.monotonic() - begun)
        if reply == BEHIND and time.monotonic() - self._last_upkeep > MIN_UPKEEP_PAUSE_SECONDS:
            self._wake.set()  # the coordinator named newer documents: fetch them now
        self._note_cycle()
        return reply

    def _close_when_stopped(self) -> None:
        """Close the channel when the node has signed off, or after a time limit."""
        self._stop.wait()
        self._signed_off.wait(FINISH_SECONDS)
        self._link.close()

    def _do_upkeep(self) -> None:
        while not self._stop.is_set():
            self._health.progress.moved(UPKEEP, WORK_SECONDS)
            try:
                if self._link_status.connected:  # no other session may renew
                    self._renewal.renew_if_due()
                self._node.do_upkeep()
                self._health.record_upkeep(self._node.status(self._link_status))
            except Exception:  # noqa: BLE001 - the upkeep continues after any fault
                _log.exception("the upkeep met a fault")
            self._garbage.collect_if_changed(self._node.parts.record_store.readings)
            self._last_upkeep = time.monotonic()
            self._wake.wait(UPKEEP_SECONDS)
            self._wake.clear()

    def _answer(self, method: str, params: Mapping[str, Any]) -> Any:
        methods: dict[str, Callable[..., Any]] = {
            "status": self._status,
            "pause": self._pause,
            "resume": self._resume,
            "deliver": self._deliver,
            "approve_key": self._approve_key,
            "officer_key": self._officer_key,
            "log_head": self._node.log_head,
            "log_entries": self._node.log_entries,
            "check_state": self._node.check_state,
        }
        if method not in methods:
            raise NodeFault(
                f"The daemon does not know the request {method[:40]!r}",
                why="the command may be of another version than the daemon",
                fix="use the command of the same version as the daemon",
            )
        return methods[method](**params)

    def _status(self) -> dict[str, Any]:
        link = replace(self._link_status, clock=self._link.clock.difference())
        status = self._node.status(link)
        self._health.record_status(status)
        return status.to_json()

    def _approve_key(self, country: str, fingerprint: str) -> dict[str, str]:
        key = self._node.approve_key(country, fingerprint)
        return {"country": country, "fingerprint": key.fingerprint}

    def _officer_key(self, key: str) -> dict[str, str]:
        officer_key = VerifyKey.from_text(key)
        self._node.pin_officer(officer_key)
        return {"fingerprint": officer_key.fingerprint}

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
            raise NodeFault(
                "The documents that were handed over cannot be read",
                why="they are not in base64",
                fix="use the command of the same version as the daemon",
            ) from None
        own = self._node.deliver(content)
        self._wake.set()
        return {"version": own.version, "expires": own.expires.isoformat()}
