"""The exchange: the coordinator's one public port, gRPC with mutual TLS.

At every call it asks who is there, from the certificate of this connection, and whether that
certificate still holds: of this federation, in time, not revoked or replaced, of a role that may
make this call. A revocation ends the calls that are under way. What is behind a call decides the
rest.
"""

import asyncio
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
from server.errors import OperationFault
from server.exchange.relay import Relay, RelayRefused

MAY_CALL: dict[str, frozenset[Role]] = {
    "Enrol": frozenset({Role.ENROLMENT}),
    "Renew": frozenset({Role.NODE, Role.OFFICER}),
    "Fetch": frozenset({Role.NODE, Role.OFFICER}),
    "Submit": frozenset({Role.OFFICER}),
    "Relay": frozenset({Role.NODE}),
}
"""Which roles may make which call; a test walks the whole matrix."""
LARGEST_REQUEST: dict[str, int] = {
    "Enrol": 64 * 2**10,
    "Renew": 4 * 2**10,
    "Fetch": 4 * 2**10,
    "Submit": 16 * 2**20,
    "Relay": MAX_MESSAGE,
}
"""In bytes; only a node carries sums."""
MOST_CALLS = 1024
"""Calls under way at once, all parties together."""
MOST_CALLS_OF_ONE = 16
"""Calls under way at once for one country's role: a long poll, a heartbeat and some objects."""
ENDING_SECONDS = 2.0


class Documents(Protocol):
    """What the exchange needs of the document store."""

    def fetch(self, path: str) -> bytes | None:
        """Return one file, or None."""

    def submit(self, peer: Peer, kind: int, content: bytes) -> None:
        """Take documents or signatures, or raise with the reason."""


class Enrolments(Protocol):
    """What the exchange needs of the enrolment desk."""

    def enrol(
        self, country: str, request: exchange_pb2.EnrolRequest, now: datetime
    ) -> exchange_pb2.EnrolReply:
        """Take a request, or say what became of it."""


class Register(Protocol):
    """What the exchange needs of the register of certificates."""

    def peer(self, certificate_pem: bytes, call: str, now: datetime) -> Peer:
        """Return whom a certificate names, if it holds for this call, or raise KeyFault."""

    def renew(
        self, peer: Peer, request: exchange_pb2.RenewRequest, now: datetime
    ) -> exchange_pb2.RenewReply:
        """Replace the certificate that `peer` presents, or raise with the reason."""

    def on_revoked(self, listener: Callable[[frozenset[int]], None]) -> None:
        """Have `listener` told of serial numbers that are revoked, in any thread."""


class ServerCredentials(Protocol):
    """The exchange's certificate and the authorities that it trusts."""

    @property
    def pair(self) -> tuple[bytes, bytes]:
        """Its key and certificate, PEM, as they belong together."""

    def trusted(self, now: datetime) -> bytes:
        """Return all authorities that are believed, PEM."""


class ExchangeService(exchange_pb2_grpc.ExchangeServicer):
    """The calls of `exchange.proto`, each behind the same check of who is calling."""

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
        """`on_refusal` is told of a known party's call that it may not make, and why."""
        self._register, self._clock, self._on_refusal = register, clock, on_refusal
        self._enrolments, self._documents, self._relay = enrolments, documents, relay
        self._under_way: Counter[tuple[str, Role]] = Counter()
        self._open: defaultdict[int, set[asyncio.Timeout]] = defaultdict(set)
        self._loop: asyncio.AbstractEventLoop | None = None
        register.on_revoked(self._revoked)

    async def Enrol(  # noqa: N802 (the name in exchange.proto)
        self, request: exchange_pb2.EnrolRequest, context: Any
    ) -> exchange_pb2.EnrolReply:
        """Take a request for admission, or say what became of it."""
        async with self._heard(context, "Enrol", request) as peer:
            try:
                return self._enrolments.enrol(peer.country, request, self._clock())
            except PratiqueError as fault:
                await _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, str(fault))
                raise

    async def Renew(  # noqa: N802
        self, request: exchange_pb2.RenewRequest, context: Any
    ) -> exchange_pb2.RenewReply:
        """Replace the caller's own certificate by one for a new key."""
        async with self._heard(context, "Renew", request) as peer:
            try:
                return self._register.renew(peer, request, self._clock())
            except PratiqueError as fault:
                await _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, str(fault))
                raise

    async def Fetch(  # noqa: N802
        self, request: exchange_pb2.FetchRequest, context: Any
    ) -> exchange_pb2.FetchReply:
        """Hand out one file of the document store."""
        async with self._heard(context, "Fetch", request):
            content = self._documents.fetch(request.path)
            return exchange_pb2.FetchReply(found=content is not None, content=content or b"")

    async def Submit(  # noqa: N802
        self, request: exchange_pb2.SubmitRequest, context: Any
    ) -> exchange_pb2.SubmitReply:
        """Take an officer's documents or signatures; checking them holds nobody else up."""
        async with self._heard(context, "Submit", request) as peer:
            submit = self._documents.submit
            try:
                await asyncio.to_thread(submit, peer, request.kind, request.content)
            except PratiqueError as fault:
                return exchange_pb2.SubmitReply(what=fault.what, why=fault.why, fix=fault.fix)
            return exchange_pb2.SubmitReply(accepted=True)

    async def Relay(  # noqa: N802
        self, request: exchange_pb2.RelayRequest, context: Any
    ) -> exchange_pb2.RelayReply:
        """Carry one Fleet call of the caller's own node."""
        async with self._heard(context, "Relay", request) as peer:
            try:
                carried = await self._relay.call(
                    peer.country,
                    request.method,
                    request.body,
                    request.headers,
                    request.object,
                    request.received,
                )
            except RelayRefused as fault:
                self._on_refusal(peer, _known(request.method), str(fault))
                await _refuse(context, grpc.StatusCode.PERMISSION_DENIED, str(fault))
                raise
            await self._peer(context, "Relay")  # it may have been revoked while the call waited
            return exchange_pb2.RelayReply(**carried._asdict())

    @asynccontextmanager
    async def _heard(self, context: Any, call: str, request: Message) -> AsyncIterator[Peer]:
        """Yield who calls, where the call is theirs, of a fair size, and not one too many."""
        peer = await self._peer(context, call)
        who = peer.country, peer.role
        if request.ByteSize() > LARGEST_REQUEST[call]:
            why = f"a {call} request has at most {LARGEST_REQUEST[call]} bytes"
            await _refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, why)
        if self._under_way[who] >= MOST_CALLS_OF_ONE:
            why = f"{MOST_CALLS_OF_ONE} calls of this party are under way already"
            await _refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, why)
        self._under_way[who] += 1
        try:
            async with self._until_revoked(context, peer):
                yield peer
        finally:
            self._under_way[who] -= 1

    @asynccontextmanager
    async def _until_revoked(self, context: Any, peer: Peer) -> AsyncIterator[None]:
        """Cut what goes on inside when the caller's certificate is revoked."""
        self._loop, scope = asyncio.get_running_loop(), asyncio.timeout(None)
        try:
            async with scope:
                self._open[peer.serial].add(scope)
                yield
        except TimeoutError:
            if scope.expired():
                why = "this certificate was revoked during the call"
                await _refuse(context, grpc.StatusCode.UNAUTHENTICATED, why)
            raise
        finally:
            self._open[peer.serial].discard(scope)
            if not self._open[peer.serial]:
                del self._open[peer.serial]

    def _revoked(self, serials: frozenset[int]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._cut, serials)

    def _cut(self, serials: frozenset[int]) -> None:
        for scope in [one for serial in serials for one in self._open.get(serial, ())]:
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
    """End the call; `abort` raises, so that nothing after it runs."""
    await context.abort(code, details)


def _known(method: str) -> str:
    return method if method in FLEET_CALLS else "Relay"


async def serve_exchange(
    service: ExchangeService,
    address: str,
    *,
    shown: ServerCredentials,
    clock: Callable[[], datetime],
    interceptors: Sequence[Any] = (),
) -> tuple[Any, int]:
    """Start the exchange on `address`; returns the server and its port.

    Every connection needs a client certificate of the federation's authority, and is shown what
    `shown` holds at that moment. Raises OperationFault where nothing can listen there.
    """
    server = grpc.aio.server(
        interceptors=interceptors,
        maximum_concurrent_rpcs=MOST_CALLS,
        options=[
            ("grpc.max_send_message_length", MAX_MESSAGE),
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
            ("grpc.keepalive_time_ms", 20_000),  # a party that is gone is let go of
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.ping_timeout_ms", 10_000),  # a minute otherwise
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ],
    )
    exchange_pb2_grpc.add_ExchangeServicer_to_server(service, server)

    def configured() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([shown.pair], shown.trusted(clock()))

    credentials = grpc.dynamic_ssl_server_credentials(
        configured(), configured, require_client_authentication=True
    )
    try:
        port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise OperationFault(
            f"The exchange cannot listen at {address}",
            why="another program listens there, or the address is not this machine's",
            fix="end that program, or correct `listen` in coordinator.yaml",
        ) from error
    await server.start()
    return server, port
