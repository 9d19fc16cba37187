"""Starts the exchange: gRPC with mutual TLS on a local socket, and the public port before it."""

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import grpc

from governance.runtime.local_rpc import prepare_socket
from protocols.proto import exchange_pb2_grpc
from protocols.wire.channel import MAX_MESSAGE
from protocols.wire.request_parts import LARGEST_PART
from server.exchange.connection_limits import Room
from server.exchange.interceptors import TimeStatement
from server.exchange.public_port import PublicPort
from server.exchange.service import MAX_STREAMS, ExchangeService


class ServerCredentials(Protocol):
    """The exchange's certificate and the authorities that it trusts."""

    @property
    def pair(self) -> tuple[bytes, bytes]:
        """The exchange's key and the certificate for this key, PEM."""

    def trusted(self, now: datetime) -> bytes:
        """Return all trusted authorities, PEM."""


class Exchange:
    """A running exchange: gRPC, and the public port before it."""

    def __init__(self, server: Any, port: PublicPort, inner: Path) -> None:
        self._server, self._port, self._inner = server, port, inner

    async def stop(self, seconds: float | None) -> None:
        """Refuse new calls, end those in progress after `seconds`, and close the port."""
        await self._server.stop(seconds)
        await self._port.close()
        self._inner.unlink(missing_ok=True)


async def serve_exchange(
    service: ExchangeService,
    address: str,
    *,
    credentials: ServerCredentials,
    clock: Callable[[], datetime],
    room: Room,
    inner: Path,
    interceptors: Sequence[Any] = (),
) -> tuple[Exchange, int]:
    """Start the exchange on `address`; return it and its port.

    `inner` is the local socket at which gRPC gets the connections of the public port. Raises
    LocalRpcFault if its folder is open to other users.
    Every connection needs a client certificate of the federation's authority. It is shown the
    certificate that `credentials` has at that moment. Raises CoordinatorFault if the exchange
    cannot listen there.
    """
    prepare_socket(inner)
    public = PublicPort(room)
    server = grpc.aio.server(
        interceptors=[*interceptors, TimeStatement(clock)],
        options=[
            ("grpc.max_send_message_length", MAX_MESSAGE),
            ("grpc.max_receive_message_length", LARGEST_PART),
            ("grpc.max_concurrent_streams", MAX_STREAMS),
            ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
            ("grpc.keepalive_time_ms", 20_000),  # the connection of a lost party is closed
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.ping_timeout_ms", 10_000),  # a minute otherwise
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ],
    )
    exchange_pb2_grpc.add_ExchangeServicer_to_server(service, server)
    exchange = Exchange(server, public, inner)
    try:
        server.add_secure_port(f"unix:{inner}", _tls(credentials, clock))
        await server.start()
        port = public.open(address, inner)
    except BaseException:
        await exchange.stop(None)
        raise
    service.serve_at(public)
    return exchange, port


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
