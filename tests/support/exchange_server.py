"""An exchange on a free port of loopback, callers with certificates, and a scripted SuperLink."""

import asyncio
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree

from keys.certificates import (
    Peer,
    Role,
    TransportAuthority,
    new_transport_key,
    peer_of,
    public_pem,
)
from protocols.wire.channel import ExchangeLink
from server.exchange.connection_limits import Room
from server.exchange.fencing import ACTS, Claim, Fence
from server.exchange.relay import Relay
from server.exchange.service import ExchangeService
from server.exchange.serving import serve_exchange

HOUR = timedelta(hours=1)
LOOPBACK = "127.0.0.1"
WAIT_SECONDS = 20.0
ROOM = Room(total=256, of_address=32)


def now() -> datetime:
    return datetime.now(UTC)


NODE_KNOWN = {"SendNodeHeartbeat": SendNodeHeartbeatResponse(success=True).SerializeToString()}
"""The answer to a heartbeat of a node that the SuperLink counts as online."""


class ScriptedSuperLink:
    """Records the Fleet calls that the relay forwards; answers as the test says, else emptily."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bytes, dict[str, str]]] = []
        self.answers: dict[str, list[tuple[int, bytes]]] = {}

    def will(self, method: str, body: bytes = b"", status: int = 200) -> None:
        self.answers.setdefault(method, []).append((status, body))

    async def forward(
        self, method: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        self.calls.append((method, body, dict(headers)))
        waiting = self.answers.get(method)
        return waiting.pop(0) if waiting else (200, NODE_KNOWN.get(method, b""))

    @property
    def methods(self) -> list[str]:
        return [method for method, _, _ in self.calls]


def inner_socket() -> Path:
    """Return a path for the socket behind a public port, in a new private folder."""
    return Path(tempfile.mkdtemp(prefix="exchange-")) / "exchange.sock"


def tree(name: str, *children: ObjectTree) -> ObjectTree:
    return ObjectTree(object_id=name, children=children)


def incoming(*trees: ObjectTree) -> bytes:
    """Return an answer to PullMessages with one message for each tree."""
    heads = [
        Metadata(message_id=t.object_id, run_id=7, src_node_id=1, created_at=time.time(), ttl=60.0)
        for t in trees
    ]
    messages = [Message(metadata=head) for head in heads]
    response = PullMessagesResponse(messages_list=messages)
    response.message_object_trees.extend(trees)
    return bytes(response.SerializeToString())


@dataclass(frozen=True)
class Caller:
    """A party with a transport key and a certificate."""

    key: bytes
    certificate: bytes

    def link(self, port: int, authority: TransportAuthority) -> ExchangeLink:
        return ExchangeLink(
            f"{LOOPBACK}:{port}",
            authority=authority.certificate_pem,
            key=self.key,
            certificate=self.certificate,
        )


def caller(
    authority: TransportAuthority,
    country: str = "AT",
    role: Role = Role.NODE,
    *,
    at: datetime | None = None,
    lifetime: timedelta = HOUR,
    hosts: tuple[str, ...] = (),
) -> Caller:
    key = new_transport_key()
    certificate = authority.issue(
        public_pem(key),
        country=country,
        role=role,
        now=at or now(),
        lifetime=lifetime,
        hosts=hosts,
    )
    return Caller(key, certificate)


@dataclass
class ServedFiles:
    """A document store that records what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    handed_in: list[tuple[str, int, bytes]] = field(default_factory=list)
    refusal: Exception | None = None

    def fetch(self, path: str) -> bytes | None:
        self.asked.append(path)
        return self.files.get(path)

    def is_renewal(self, peer: Any, kind: int, content: bytes) -> bool:
        return False

    def submit(self, peer: Any, kind: int, content: bytes) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.handed_in.append((peer.country, kind, content))


class LoopThread:
    """An event loop in a separate thread, like the daemon's beside its local RPC server."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def begin(self, work: Awaitable[Any]) -> "Future[Any]":
        async def await_it() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(await_it(), self.loop)

    def run(self, work: Awaitable[Any]) -> Any:
        return self.begin(work).result(WAIT_SECONDS)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT_SECONDS)
        self.loop.close()


class OpenFence(Fence):
    """Lets every session act; what a real fence decides is tested elsewhere."""

    def acts(self, country: str, session: bytes) -> bool:
        return True

    def heard(self, country: str, session: bytes) -> bool:
        return True

    def claim(self, country: str, session: bytes, address: str) -> Claim:
        return ACTS

    def ended(self, country: str, session: bytes) -> None:
        return None


class OpenRegister:
    """Accepts every certificate of the authority; none is revoked or replaced."""

    def __init__(self, authority: TransportAuthority) -> None:
        self._authority_pem = authority.certificate_pem

    def peer(
        self, certificate_pem: bytes, call: str, now: datetime, *_: object, **__: object
    ) -> Peer:
        return peer_of(certificate_pem, authority_pem=self._authority_pem, now=now, revoked=())

    def on_revoked(self, listener: Callable[[frozenset[int]], None]) -> None:
        return None


class RenewalNeverDue:
    """A node's certificate that needs no renewal."""

    def renew_if_due(self) -> None:
        return None

    def ended(self) -> str:
        return ""


@dataclass
class FixedCredentials:
    """The exchange's certificate and trusted authorities; a test may change both while it runs."""

    pair: tuple[bytes, bytes]
    believed: bytes

    def trusted(self, _: datetime) -> bytes:
        return self.believed


class OpenExchange:
    """A running exchange on `port`."""

    def __init__(
        self,
        authority: TransportAuthority,
        relay: Relay,
        *,
        enrolments: Any,
        documents: Any,
        clock: Callable[[], datetime] = now,
        thread: LoopThread | None = None,
        room: Room = ROOM,
    ) -> None:
        self.authority, self.relay = authority, relay
        self.refusals: list[tuple[str, str, str]] = []
        self.thread = thread or LoopThread()
        register: Any = getattr(enrolments, "register", OpenRegister(authority))
        service = ExchangeService(
            register=register,
            enrolments=enrolments,
            documents=documents,
            relay=relay,
            clock=clock,
            on_refusal=lambda peer, call, why: self.refusals.append((peer.country, call, why)),
        )
        own = caller(authority, "ZZ", Role.COORDINATOR, hosts=(LOOPBACK, "localhost"))
        self.shown = FixedCredentials((own.key, own.certificate), authority.certificate_pem)
        self._server, self.port = self.thread.run(
            serve_exchange(
                service,
                f"{LOOPBACK}:0",
                credentials=self.shown,
                clock=clock,
                room=room,
                inner=inner_socket(),
            )
        )

    def link(self, who: Caller) -> ExchangeLink:
        return who.link(self.port, self.authority)

    def open_session(self, country: str, node_id: int, public_key: bytes) -> None:
        async def act() -> None:
            self.relay.open_session(country, node_id, public_key)

        self.thread.run(act())

    def announce(self, countries: Iterable[str]) -> None:
        async def act() -> None:
            self.relay.announce(countries)

        self.thread.run(act())

    def close(self) -> None:
        self.thread.run(self._server.stop(None))
        self.thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
