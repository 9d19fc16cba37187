"""The exchange: the coordinator's only public port, gRPC with mutual TLS.

Each call is authorised by the certificate of its connection: it must be of this federation, in
time, not revoked or replaced, and of a role that may make this call. A revocation ends the calls
in progress. The part behind each call decides the rest.
"""

import asyncio
import threading
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message

from keys.certificates import Peer, Role
from keys.errors import KeyFault, PratiqueError
from protocols.proto import exchange_pb2, exchange_pb2_grpc
from protocols.wire.channel import MAX_MESSAGE
from protocols.wire.flower_frame import FLEET_CALLS
from server.errors import CoordinatorFault
from server.exchange.fleet_requests import RelayRefused
from server.exchange.interceptors import TimeStatement
from server.exchange.relay import Relay

MAY_CALL: dict[str, frozenset[Role]] = {
    "Enrol": frozenset({Role.ENROLMENT}),
    "Renew": frozenset({Role.NODE, Role.OFFICER}),
    "Fetch": frozenset({Role.NODE, Role.OFFICER}),
    "Submit": frozenset({Role.OFFICER}),
    "Relay": frozenset({Role.NODE}),
}
"""The roles that may make each call; a test checks every pair."""
LARGEST_REQUEST: dict[str, int] = {
    "Enrol": 64 * 2**10,
    "Renew": 4 * 2**10,
    "Fetch": 4 * 2**10,
    "Submit": 16 * 2**20,
    "Relay": MAX_MESSAGE,
}
"""The largest request of each call, in bytes; only a node's request contains sums."""
MAX_CALLS = 1024
"""The most calls in progress at once, of all parties together."""
MAX_CALLS_OF_PARTY = 16
"""The most calls in progress at once for one country and role: a long poll, a heartbeat and some
objects."""
ENDING_SECONDS = 2.0


class Documents(Protocol):
    """The document store, as the exchange uses it."""

    def fetch(self, path: str) -> bytes | None:
        """Return one file, or None."""

    def submit(self, peer: Peer, kind: int, content: bytes) -> None:
        """Accept documents or signatures, or raise with the reason."""


class Enrolments(Protocol):
    """The enrolment service, as the exchange uses it."""

    def enrol(
        self, country: str, request: exchange_pb2.EnrolRequest, now: datetime
    ) -> exchange_pb2.EnrolReply:
        """Accept a request for admission, or return its status."""


class Register(Protocol):
    """The register of certificates, as the exchange uses it."""

    def peer(self, certificate_pem: bytes, call: str, now: datetime) -> Peer:
        """Return the party that a certificate names; KeyFault if it is not valid for the call."""

    def renew(
        self, peer: Peer, request: exchange_pb2.RenewRequest, now: datetime
    ) -> exchange_pb2.RenewReply:
        """Replace the certificate that `peer` presents, or raise with the reason."""

    def on_revoked(self, listener: Callable[[frozenset[int]], None]) -> None:
        """Call `listener` with the serial numbers that are revoked, from any thread."""


class ServerCredentials(Protocol):
    """The exchange's certificate and the authorities that it trusts."""

    @property
    def pair(self) -> tuple[bytes, bytes]:
        """The exchange's key and the certificate for this key, PEM."""

    def trusted(self, now: datetime) -> bytes:
        """Return all trusted authorities, PEM."""


class ExchangeService(exchange_pb2_grpc.ExchangeServicer):
    """The calls of `exchange.proto`, each behind the same authorisation."""

    def __init__(
        self,
        *,
        register: Register,
        enrolments: Enrolments,
        documents: Documents,
        relay: Relay,
        clock: Callable[[], datetime],
        on_refusal: Callable[[Peer, str, str], None],
    ) -> None:
        """`on_refusal` takes a known party, the call that it may not make, and the reason."""
        self._register, self._clock, self._on_refusal = register, clock, on_refusal
        self._enrolments, self._documents, self._relay = enrolments, documents, relay
        self._in_progress: Counter[tuple[str, Role]] = Counter()
        self._scopes: defaultdict[int, set[asyncio.Timeout]] = defaultdict(set)
        """Calls in progress by the serial number of their certificate."""
        self._loop: asyncio.AbstractEventLoop | None = None
        register.on_revoked(self._end_calls)

    async def Enrol(  # noqa: N802 (the name in exchange.proto)
        self, request: exchange_pb2.EnrolRequest, context: Any
    ) -> exchange_pb2.EnrolReply:
        """Accept a request for admission, or return its status."""
        async with self._authorised(context, "Enrol", request) as peer:
            try:
                return self._enrolments.enrol(peer.country, request, self._clock())
            except PratiqueError as fault:
                await _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, str(fault))
                raise

    async def Renew(  # noqa: N802
        self, request: exchange_pb2.RenewRequest, context: Any
    ) -> exchange_pb2.RenewReply:
        """Replace the caller's certificate by one for a new key."""
        async with self._authorised(context, "Renew", request) as peer:
            try:
                return self._register.renew(peer, request, self._clock())
            except PratiqueError as fault:
                await _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, str(fault))
                raise

    async def Fetch(  # noqa: N802
        self, request: exchange_pb2.FetchRequest, context: Any
    ) -> exchange_pb2.FetchReply:
        """Return one file of the document store."""
        async with self._authorised(context, "Fetch", request):
            content = self._documents.fetch(request.path)
            return exchange_pb2.FetchReply(found=content is not None, content=content or b"")

    async def Submit(  # noqa: N802
        self, request: exchange_pb2.SubmitRequest, context: Any
    ) -> exchange_pb2.SubmitReply:
        """Accept an officer's documents or signatures; they are checked in another thread."""
        async with self._authorised(context, "Submit", request) as peer:
            submit = self._documents.submit
            try:
                await asyncio.to_thread(submit, peer, request.kind, request.content)
            except PratiqueError as fault:
                return exchange_pb2.SubmitReply(what=fault.what, why=fault.why, fix=fault.fix)
            return exchange_pb2.SubmitReply(accepted=True)

    async def Relay(  # noqa: N802
        self, request: exchange_pb2.RelayRequest, context: Any
    ) -> exchange_pb2.RelayReply:
        """Forward one Fleet call of the caller's node."""
        async with self._authorised(context, "Relay", request) as peer:
            try:
                reply = await self._relay.call(
                    peer.country,
                    request.method,
                    request.body,
                    request.headers,
                    request.object,
                    request.received,
                )
            except RelayRefused as fault:
                self._on_refusal(peer, _known_call(request.method), str(fault))
                await _refuse(context, grpc.StatusCode.PERMISSION_DENIED, str(fault))
                raise
            await self._peer(context, "Relay")  # it may have been revoked while the call waited
            return exchange_pb2.RelayReply(**reply._asdict())

    @asynccontextmanager
    async def _authorised(self, context: Any, call: str, request: Message) -> AsyncIterator[Peer]:
        """Yield the caller, if it may make this call, of this size, beside its other calls."""
        peer = await self._peer(context, call)
        party = peer.country, peer.role
        if request.ByteSize() > LARGEST_REQUEST[call]:
            why = f"a {call} request has at most {LARGEST_REQUEST[call]} bytes"
            await _refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, why)
        if self._in_progress[party] >= MAX_CALLS_OF_PARTY:
            why = f"{MAX_CALLS_OF_PARTY} calls of this party are already in progress"
            await _refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, why)
        self._in_progress[party] += 1
        try:
            async with self._until_revoked(context, peer):
                yield peer
        finally:
            self._in_progress[party] -= 1

    @asynccontextmanager
    async def _until_revoked(self, context: Any, peer: Peer) -> AsyncIterator[None]:
        """End the work inside this context when the caller's certificate is revoked."""
        self._loop, scope = asyncio.get_running_loop(), asyncio.timeout(None)
        try:
            async with scope:
                self._scopes[peer.serial].add(scope)
                yield
        except TimeoutError:
            if scope.expired():
                why = "this certificate was revoked during the call"
                await _refuse(context, grpc.StatusCode.UNAUTHENTICATED, why)
            raise
        finally:
            self._scopes[peer.serial].discard(scope)
            if not self._scopes[peer.serial]:
                del self._scopes[peer.serial]

    def _end_calls(self, serials: frozenset[int]) -> None:
        """End the calls with these certificates; may be called from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._expire, serials)

    def _expire(self, serials: frozenset[int]) -> None:
        for scope in [scope for serial in serials for scope in self._scopes.get(serial, ())]:
            scope.reschedule(asyncio.get_running_loop().time())

    async def _peer(self, context: Any, call: str) -> Peer:
        presented = context.auth_context().get("x509_pem_cert", [b""])[0]
        try:
            peer = self._register.peer(presented, call, self._clock())
        except KeyFault as fault:
            await _refuse(context, grpc.StatusCode.UNAUTHENTICATED, str(fault))
            raise
        if peer.role not in MAY_CALL[call]:
            why = f"a certificate of role {peer.role} may not call {call}"
            self._on_refusal(peer, call, why)
            await _refuse(context, grpc.StatusCode.PERMISSION_DENIED, why)
        return peer


async def _refuse(context: Any, code: grpc.StatusCode, details: str) -> None:
    """End the call; `abort` raises, so nothing after it runs."""
    await context.abort(code, details)


def _known_call(method: str) -> str:
    return method if method in FLEET_CALLS else "Relay"


async def serve_exchange(
    service: ExchangeService,
    address: str,
    *,
    credentials: ServerCredentials,
    clock: Callable[[], datetime],
    interceptors: Sequence[Any] = (),
) -> tuple[Any, int]:
    """Start the exchange on `address`; return the server and its port.

    Every connection needs a client certificate of the federation's authority. It is shown the
    certificate that `credentials` has at that moment. Raises CoordinatorFault if the server cannot
    listen there.
    """
    server = grpc.aio.server(
        interceptors=[*interceptors, TimeStatement(clock)],
        maximum_concurrent_rpcs=MAX_CALLS,
        options=[
            ("grpc.max_send_message_length", MAX_MESSAGE),
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
            ("grpc.keepalive_time_ms", 20_000),  # the connection of a lost party is closed
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.ping_timeout_ms", 10_000),  # a minute otherwise
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ],
    )
    exchange_pb2_grpc.add_ExchangeServicer_to_server(service, server)

    try:
        port = server.add_secure_port(address, _tls(credentials, clock))
    except RuntimeError as error:
        raise CoordinatorFault(
            f"The exchange cannot listen at {address}",
            why="another program listens there, or the address is not one of this machine",
            fix="end that program, or correct `listen` in coordinator.yaml",
        ) from error
    await server.start()
    return server, port


def _tls(credentials: ServerCredentials, clock: Callable[[], datetime]) -> Any:
    """Return the server's TLS credentials, which follow what `credentials` has.

    gRPC asks at each handshake. It must get None if nothing has changed: it puts a configuration in
    place of the former one without waiting for the handshakes that use it. Two handshakes at once
    could then end the process (grpcio 1.85, a use after free).
    """
    shown, lock = _presented(credentials, clock), threading.Lock()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        with lock:
            current = _presented(credentials, clock)
            if current == shown:
                return None
            configuration = _configuration(*current)
            shown = current
            return configuration

    return grpc.dynamic_ssl_server_credentials(
        _configuration(*shown),
        changed,  # type: ignore[arg-type]  # its stub does not know that None means no change
        require_client_authentication=True,
    )


def _presented(
    credentials: ServerCredentials, clock: Callable[[], datetime]
) -> tuple[tuple[bytes, bytes], bytes]:
    """Return the key and certificate to show, and the authorities to trust, at this moment."""
    return credentials.pair, credentials.trusted(clock())


def _configuration(
    pair: tuple[bytes, bytes], trusted: bytes
) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([pair], trusted)
