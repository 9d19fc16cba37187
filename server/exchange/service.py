"""The exchange: the coordinator's only public port, gRPC with mutual TLS.

Each call is authorised by the certificate of its connection: it must be of this federation, in
time, not revoked or replaced, and of a role that may make this call. Only then its request is read,
within a size and a time. A revocation ends the calls in progress. The part behind each call decides
the rest. A node states its session with each call: only the one that acts for it changes anything.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from governance.trust.bundle import CountryBundle
from keys.certificates import Peer, Role
from keys.errors import KeyFault, PratiqueError
from protocols.errors import ProtocolFault
from protocols.proto import exchange_pb2, exchange_pb2_grpc
from protocols.wire.channel import MAX_MESSAGE, SESSION_KEY
from protocols.wire.flower_frame import FLEET_CALLS
from protocols.wire.request_parts import joined
from server.errors import CoordinatorFault
from server.exchange.call_limits import SLOWEST, CallLimits, OpenCall
from server.exchange.fencing import ACTS, Claim
from server.exchange.fleet_requests import RelayRefused
from server.exchange.public_port import PublicPort
from server.exchange.relay import Relay
from server.exchange.submissions import SubmissionQueue
from server.membership.certificates import Acted, Disputed, Renewer

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
    "Submit": CountryBundle.most_bytes + 4 * 2**10,
    "Relay": MAX_MESSAGE,
}
"""The largest request of each call, in bytes; only a node's request contains sums."""
PART_SECONDS = 20.0
"""How long each part of a request may take to arrive; a request that is one message is one part."""
CALL_SECONDS: dict[str, float] = {
    "Enrol": 30.0,
    "Renew": 60.0,
    "Fetch": 60.0,
    "Submit": 120.0,
    "Relay": 330.0,
}
"""How long each call may take, from its first byte to the last byte of its reply: a little longer
than the callers wait (`protocols/wire/channel.py`, `client/flower_client.py`)."""
MAX_STREAMS = 32
"""The most calls at once over one connection; gRPC makes the caller wait with further ones."""
ENDING_SECONDS = 2.0
_TOO_SLOW = (
    f"the request arrived with less than {SLOWEST // 2**10} KiB a second, and others wait for the "
    "memory that it holds; send it again, and check the link if this lasts"
)

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class _Caller:
    """The party that makes a call, and the call."""

    peer: Peer
    call: OpenCall
    session: bytes
    """What a node states as its session; empty for other parties."""
    address: str


class Documents(Protocol):
    """The document store, as the exchange uses it."""

    def fetch(self, path: str) -> bytes | None:
        """Return one file, or None."""

    def submit(self, peer: Peer, kind: int, content: bytes) -> None:
        """Accept documents or signatures, or raise with the reason."""

    def is_renewal(self, peer: Peer, kind: int, content: bytes) -> bool:
        """Return whether the submission repeats what is published, signed again."""


class Enrolments(Protocol):
    """The enrolment service, as the exchange uses it."""

    def enrol(
        self, country: str, request: exchange_pb2.EnrolRequest, now: datetime
    ) -> exchange_pb2.EnrolReply:
        """Accept a request for admission, or return its status."""


class Register(Protocol):
    """The register of certificates, as the exchange uses it."""

    def peer(
        self,
        certificate_pem: bytes,
        call: str,
        now: datetime,
        acted: Acted,
        *,
        disputed: Disputed,
    ) -> Peer:
        """Return the party that a certificate names; KeyFault if it is not valid for the call."""

    def renew(
        self, peer: Peer, request: exchange_pb2.RenewRequest, now: datetime, renewer: Renewer
    ) -> exchange_pb2.RenewReply:
        """Replace the certificate that `peer` presents, or raise with the reason."""

    def on_revoked(self, listener: Callable[[frozenset[int]], None]) -> None:
        """Call `listener` with the serial numbers that are revoked, from any thread."""


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
        self._submissions = SubmissionQueue(documents.submit, documents.is_renewal)
        self._limits = CallLimits()
        self._port: PublicPort | None = None
        self._scopes: defaultdict[int, set[asyncio.Timeout]] = defaultdict(set)
        """Calls in progress by the serial number of their certificate."""
        self._loop: asyncio.AbstractEventLoop | None = None
        register.on_revoked(self._end_calls)

    def serve_at(self, port: PublicPort) -> None:
        """Notify this port of each connection's calls, so that it knows whose they are."""
        self._port = port

    async def Enrol(  # noqa: N802 (the name in exchange.proto)
        self, requests: AsyncIterator[exchange_pb2.EnrolRequest], context: Any
    ) -> exchange_pb2.EnrolReply:
        """Accept a request for admission, or return its status."""
        async with self._authorised(context, "Enrol") as caller:
            request = await self._single(context, "Enrol", requests)
            try:
                return self._enrolments.enrol(caller.peer.country, request, self._clock())
            except PratiqueError as fault:
                await _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, str(fault))
                raise

    async def Renew(  # noqa: N802
        self, requests: AsyncIterator[exchange_pb2.RenewRequest], context: Any
    ) -> exchange_pb2.RenewReply:
        """Replace the caller's certificate by one for a new key."""
        async with self._authorised(context, "Renew") as caller:
            request = await self._single(context, "Renew", requests)
            peer, renewer = caller.peer, Renewer()
            if peer.role is Role.NODE:
                renewer = self._relay.renewer(peer.country, caller.session)
            try:
                return self._register.renew(peer, request, self._clock(), renewer)
            except PratiqueError as fault:
                await _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, str(fault))
                raise

    async def Fetch(  # noqa: N802
        self, requests: AsyncIterator[exchange_pb2.FetchRequest], context: Any
    ) -> exchange_pb2.FetchReply:
        """Return one file of the document store."""
        async with self._authorised(context, "Fetch") as caller:
            request = await self._single(context, "Fetch", requests)
            content = self._documents.fetch(request.path)
            await self._limits.reserve(caller.call, len(content or b""))
            return exchange_pb2.FetchReply(found=content is not None, content=content or b"")

    async def Submit(  # noqa: N802
        self, parts: AsyncIterator[exchange_pb2.RequestPart], context: Any
    ) -> exchange_pb2.SubmitReply:
        """Accept an officer's documents or signatures; see `server.exchange.submissions`."""
        async with self._authorised(context, "Submit") as caller:
            read = self._whole(context, "Submit", caller, parts)
            request = exchange_pb2.SubmitRequest.FromString(await read)
            try:
                await self._submissions.submit(caller.peer, request.kind, request.content)
            except PratiqueError as fault:
                return exchange_pb2.SubmitReply(what=fault.what, why=fault.why, fix=fault.fix)
            return exchange_pb2.SubmitReply(accepted=True)

    async def Relay(  # noqa: N802
        self, parts: AsyncIterator[exchange_pb2.RequestPart], context: Any
    ) -> exchange_pb2.RelayReply:
        """Forward one Fleet call of the caller's node."""
        async with self._authorised(context, "Relay") as caller:
            read = self._whole(context, "Relay", caller, parts)
            request = exchange_pb2.RelayRequest.FromString(await read)
            try:
                country, address = caller.peer.country, caller.address
                reply = await self._relay.call(country, request, address=address)
            except RelayRefused as fault:
                self._on_refusal(caller.peer, _known_call(request.method), str(fault))
                await _refuse(context, grpc.StatusCode.PERMISSION_DENIED, str(fault))
                raise
            # the certificate may have been revoked while the call waited
            await self._peer(context, "Relay", caller.session, caller.address)
            await self._limits.reserve(caller.call, len(reply.body) + len(reply.object))
            return exchange_pb2.RelayReply(**reply._asdict())

    @asynccontextmanager
    async def _authorised(self, context: Any, call: str) -> AsyncIterator[_Caller]:
        """Yield the caller, if it may make this call beside its others; nothing is read before.

        The call counts until its reply has arrived. A malformed request ends it with the reason.
        """
        session, address = _stated_session(context), self._address(context)
        peer, claim = await self._peer(context, call, session, address)
        try:
            caller = _Caller(peer, self._limits.begin(peer, claim), session, address)
        except CoordinatorFault as refusal:
            await _refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, str(refusal))
            raise
        self._end_in_time(context, call, caller.call)
        try:
            async with self._until_ended(context, caller, CALL_SECONDS[call]):
                yield caller
        except (DecodeError, ProtocolFault) as fault:
            why = str(fault) if isinstance(fault, ProtocolFault) else "the request cannot be read"
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, why)

    def _end_in_time(self, context: Any, call: str, open_call: OpenCall) -> None:
        """Count the call until its reply has arrived; if it takes too long, end its connection."""
        port, name = self._port, context.peer()
        late = asyncio.get_running_loop().call_later(
            CALL_SECONDS[call] + ENDING_SECONDS, lambda: port.end(name) if port else None
        )

        def done(_: Any) -> None:
            late.cancel()
            self._limits.end(open_call)

        context.add_done_callback(done)

    async def _single(self, context: Any, call: str, requests: AsyncIterator[M]) -> M:
        """Return a request that is one message."""
        request = await _in_time(context, anext(requests, None))
        if request is None:
            raise ProtocolFault("The request cannot be read", why="the call has none")
        await _require_size(context, call, request.ByteSize())
        return request

    async def _whole(
        self,
        context: Any,
        call: str,
        caller: _Caller,
        parts: AsyncIterator[exchange_pb2.RequestPart],
    ) -> bytes:
        """Return a request that arrives in parts; it waits for room before most of it is read."""

        open_call = caller.call

        async def admit(size: int) -> None:
            await _require_size(context, call, size, within=open_call.holder.most_bytes)
            await self._limits.reserve(open_call, size, reads=True)

        async def timely() -> AsyncIterator[exchange_pb2.RequestPart]:
            while (part := await _in_time(context, anext(parts, None))) is not None:
                open_call.arrived += len(part.content)
                yield part

        try:
            return await joined(timely(), admit)
        finally:
            open_call.reads = False

    @asynccontextmanager
    async def _until_ended(
        self, context: Any, caller: _Caller, seconds: float
    ) -> AsyncIterator[None]:
        """End the work inside this context after `seconds`, or when the call is ended.

        A revocation of the certificate ends it, and others that wait for its memory.
        """
        self._loop = loop = asyncio.get_running_loop()
        scope, ends, serial = asyncio.timeout(seconds), loop.time() + seconds, caller.peer.serial
        try:
            async with scope:
                self._scopes[serial].add(scope)
                caller.call.end = lambda: scope.reschedule(loop.time())
                yield
        except TimeoutError:
            if scope.expired() and caller.call.ended_for_others:
                await _refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, _TOO_SLOW)
            if scope.expired() and loop.time() >= ends:
                why = f"the call took longer than {seconds:.0f} seconds"
                await _refuse(context, grpc.StatusCode.DEADLINE_EXCEEDED, why)
            if scope.expired():
                why = "this certificate was revoked during the call"
                await _refuse(context, grpc.StatusCode.UNAUTHENTICATED, why)
            raise
        finally:
            self._scopes[serial].discard(scope)
            if not self._scopes[serial]:
                del self._scopes[serial]

    def _end_calls(self, serials: frozenset[int]) -> None:
        """End the calls with these certificates; may be called from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._expire, serials)

    def _expire(self, serials: frozenset[int]) -> None:
        for scope in [scope for serial in serials for scope in self._scopes.get(serial, ())]:
            scope.reschedule(asyncio.get_running_loop().time())

    async def _peer(
        self, context: Any, call: str, session: bytes, address: str
    ) -> tuple[Peer, Claim]:
        """Return the caller, and for whom of its party this call and its connection count."""
        presented = context.auth_context().get("x509_pem_cert", [b""])[0]
        try:
            peer = self._register.peer(
                presented,
                call,
                self._clock(),
                lambda country: self._relay.acted(country, session),
                disputed=lambda country: country in self._relay.disputes(),
            )
        except KeyFault as fault:
            if self._port is not None:
                self._port.disprove(context.peer())
            await _refuse(context, grpc.StatusCode.UNAUTHENTICATED, str(fault))
            raise
        node = peer.role is Role.NODE
        claim = self._relay.claim(peer.country, session, address) if node else ACTS
        if self._port is not None:
            self._port.prove(context.peer(), peer, claim)
        if peer.role not in MAY_CALL[call]:
            why = f"a certificate of role {peer.role} may not call {call}"
            self._on_refusal(peer, call, why)
            await _refuse(context, grpc.StatusCode.PERMISSION_DENIED, why)
        return peer, claim

    def _address(self, context: Any) -> str:
        return self._port.address(context.peer()) if self._port is not None else ""


def _stated_session(context: Any) -> bytes:
    """Return the session that a node states beside its request; empty if it states none."""
    metadata = context.invocation_metadata() or ()
    return next((value for key, value in metadata if key == SESSION_KEY), b"")


async def _refuse(context: Any, code: grpc.StatusCode, details: str) -> None:
    """End the call; `abort` raises, so nothing after it runs."""
    await context.abort(code, details)


def _known_call(method: str) -> str:
    return method if method in FLEET_CALLS else "Relay"


async def _require_size(context: Any, call: str, size: int, within: int = MAX_MESSAGE) -> None:
    """Refuse a request that is larger than its call, or than what its holder may hold."""
    if size > (largest := min(LARGEST_REQUEST[call], within)):
        why = f"a {call} request has at most {largest} bytes"
        if largest < LARGEST_REQUEST[call]:
            why += " in a session that does not act for the node"
        await _refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, why)


async def _in_time(context: Any, part: Awaitable[M | None]) -> M | None:
    """Return a part of a request, or None at its end; a caller that is too slow is refused."""
    try:
        async with asyncio.timeout(PART_SECONDS):
            return await part
    except TimeoutError:
        why = f"no part of the request arrived for {PART_SECONDS:.0f} seconds"
        await _refuse(context, grpc.StatusCode.DEADLINE_EXCEEDED, why)
        raise
