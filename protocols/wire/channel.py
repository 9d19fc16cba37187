"""The one channel that a node or an officer opens: gRPC with mutual TLS to the exchange."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message

from keys.errors import PratiqueError
from protocols.errors import ProtocolFault
from protocols.proto import exchange_pb2, exchange_pb2_grpc
from protocols.wire.exchange_clock import ExchangeClock
from protocols.wire.proxy import Route, route_to
from protocols.wire.request_parts import parts_of

MAX_MESSAGE = 64 * 2**20
"""Largest message either way, in bytes."""
FETCH_SECONDS = 30.0
"""Longer than gRPC needs to notice a half-open connection, so that a call can be repeated."""
PAUSES = 0.2, 0.4, 0.8, 1.6
"""Seconds to wait before each repetition of a call whose answer was lost.

The exchange may then execute the call twice, so all of its calls are idempotent.
"""
STOP_CHECK_SECONDS = 0.25
SESSION_KEY = "pratique-session-bin"
"""The metadata with which a node states its session in each call, before its request is read."""
IN_PARTS = frozenset({"Submit", "Relay"})
"""The calls whose requests may be large, and are sent in parts."""
MOST_SAID = 1_000
"""Characters of another party's words that an error repeats."""
_OPTIONS = [
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # its default of a minute would override the line above
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),  # gRPC's own retries end with the first byte of an answer
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]

_INTERRUPTED = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN})
"""What gRPC reports if a connection breaks, or if its bytes do not verify."""
_NO_ANSWER = _INTERRUPTED | {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


class LinkFault(PratiqueError):
    """The exchange cannot be reached, or it refused the call."""


class Stop(Protocol):
    """Cancels a call that is in progress; `threading.Event` is one."""

    def is_set(self) -> bool:
        """Return whether the call shall end now."""


class _Wire:
    """One gRPC channel, and the number of calls in progress on it."""

    def __init__(
        self, address: str, route: Route, authority: bytes, key: bytes, certificate: bytes
    ) -> None:
        credentials = grpc.ssl_channel_credentials(authority, key, certificate)
        options = [*_OPTIONS, *route.options]
        self._channel = grpc.secure_channel(address, credentials, options=options)
        self.stub = exchange_pb2_grpc.ExchangeStub(self._channel)
        self.calls = 0

    def close(self) -> None:
        self._channel.close()


class ExchangeLink:
    """A party's side of the exchange. Safe to use from several threads."""

    def __init__(self, address: str, *, authority: bytes, key: bytes, certificate: bytes) -> None:
        self._address, self._lock = address, threading.Lock()
        self.session = b""
        """A node's session, which each call states; empty for other parties."""
        self.route, self.clock = route_to(address, os.environ), ExchangeClock()
        self._wire = _Wire(address, self.route, authority, key, certificate)
        self._open = {self._wire}
        self._ended = threading.Event()

    def present(self, *, authority: bytes, key: bytes, certificate: bytes) -> None:
        """Use another certificate from the next call on; calls in progress end on the old channel.

        A closed link stays closed.
        """
        fresh = _Wire(self._address, self.route, authority, key, certificate)
        with self._lock:
            if not self._open:
                fresh.close()
                return
            old, self._wire = self._wire, fresh
            self._open.add(fresh)
        self._end_idle(old)

    def enrol(
        self, request: exchange_pb2.EnrolRequest, seconds: float = 10
    ) -> exchange_pb2.EnrolReply:
        """Ask for enrolment, or for the outcome of an earlier request."""
        reply: exchange_pb2.EnrolReply = self._call("Enrol", request, seconds)
        return reply

    def renew(
        self, request: exchange_pb2.RenewRequest, seconds: float = 30
    ) -> exchange_pb2.RenewReply:
        """Replace the certificate of this channel; the same request gets the same reply."""
        reply: exchange_pb2.RenewReply = self._call("Renew", request, seconds)
        return reply

    def fetch(self, path: str, seconds: float = FETCH_SECONDS) -> bytes | None:
        """Fetch the file at `path` from the exchange. Returns None if there is none."""
        reply = self._call("Fetch", exchange_pb2.FetchRequest(path=path), seconds)
        return reply.content if reply.found else None

    def submit(
        self, kind: exchange_pb2.SubmitRequest.Kind, content: bytes, seconds: float = 60
    ) -> None:
        """Submit documents or signatures. Raises ProtocolFault with the exchange's reason."""
        request = exchange_pb2.SubmitRequest(kind=kind, content=content)
        reply = self._call("Submit", request, seconds)
        if not reply.accepted:
            raise ProtocolFault(
                "The exchange did not accept it", why=said(reply.what, reply.why, reply.fix)
            )

    def relay(
        self,
        request: exchange_pb2.RelayRequest,
        seconds: float,
        stop: Stop | None = None,
    ) -> exchange_pb2.RelayReply:
        """Send one Fleet call through the relay. `stop` cancels it, which raises LinkFault."""
        reply: exchange_pb2.RelayReply = self._call("Relay", request, seconds, stop)
        return reply

    def close(self) -> None:
        """Close the channel; calls in progress end with LinkFault."""
        self._ended.set()
        with self._lock:
            wires, self._open = self._open, set()
        for wire in wires:
            wire.close()

    def _call(self, method: str, request: Message, seconds: float, stop: Stop | None = None) -> Any:
        deadline, pauses = time.monotonic() + seconds, iter(PAUSES)
        while True:
            try:
                return self._once(method, request, deadline - time.monotonic(), stop)
            except grpc.RpcError as error:
                if not self._pause_before_retry(error, next(pauses, seconds), deadline):
                    raise self._fault(error) from error

    def _pause_before_retry(self, error: grpc.RpcError, pause: float, deadline: float) -> bool:
        """Wait, and return whether to repeat a call; return False at once if it is too late."""
        if error.code() not in _INTERRUPTED or time.monotonic() + pause >= deadline:
            return False
        return not self._ended.wait(pause)

    def _once(self, method: str, request: Message, seconds: float, stop: Stop | None) -> Any:
        try:
            with self._channel_in_use() as wire:
                sent = sent_as(method, request)
                stated = ((SESSION_KEY, self.session),) if self.session else None
                call = getattr(wire.stub, method).future(sent, timeout=seconds, metadata=stated)
                with self._timed(call):
                    return call.result() if stop is None else _result_unless(stop, call)
        except ValueError as error:
            raise LinkFault("The link to the exchange is closed") from error

    @contextmanager
    def _timed(self, call: Any) -> Iterator[None]:
        """Note the exchange's time, which ends a call or its refusal."""
        began = time.monotonic()
        try:
            yield
        finally:
            if call.done():
                took = timedelta(seconds=time.monotonic() - began)
                self.clock.note(call.trailing_metadata(), took)

    @contextmanager
    def _channel_in_use(self) -> Iterator[_Wire]:
        """Yield the current channel, which stays open until the call has ended."""
        with self._lock:
            wire = self._wire
            wire.calls += 1
        try:
            yield wire
        finally:
            with self._lock:
                wire.calls -= 1
            self._end_idle(wire)

    def _end_idle(self, wire: _Wire) -> None:
        """Close a channel that was replaced, once the last call on it has ended."""
        with self._lock:
            ended = wire is not self._wire and not wire.calls and wire in self._open
            self._open -= {wire} if ended else set()
        if ended:
            wire.close()

    def _fault(self, error: grpc.RpcError) -> LinkFault:
        code, details = error.code(), error.details() or ""
        if code in _NO_ANSWER:
            return LinkFault(
                f"The exchange at {self._address} does not answer",
                why="; ".join(
                    filter(None, (f"gRPC reports {details[:MOST_SAID]!r}", self.route.says))
                ),
                fix="check the address and the network, and that the coordinator runs",
            )
        return LinkFault(f"The exchange at {self._address} refused the call", why=said(details))


def said(*sentences: str) -> str:
    """Return what another party said in quotation marks: it must not look like our own words."""
    text = ". ".join(sentence for sentence in sentences if sentence)
    return f"it says {text[:MOST_SAID]!r}" if text else ""


def sent_as(method: str, request: Message) -> Iterator[Message]:
    """Return the messages in which a call sends its request."""
    return parts_of(request.SerializeToString()) if method in IN_PARTS else iter((request,))


def _result_unless(stop: Stop, call: Any) -> Any:
    """Return a call's result; cancel the call soon after `stop` is set."""
    while not stop.is_set():
        try:
            return call.result(STOP_CHECK_SECONDS)
        except grpc.FutureTimeoutError:
            continue
        except grpc.FutureCancelledError:
            break
    call.cancel()
    raise LinkFault("The call was cancelled")
