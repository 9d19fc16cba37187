"""The authority's certificates in a real gRPC mutual TLS handshake, on loopback."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import cast

import grpc
import pytest

from keys.certificates import Peer, Role, TransportAuthority, new_transport_key, peer_of, public_pem

NOW = datetime.now(UTC)
METHOD = "/pratique.test/WhoAmI"
HYBRID_GROUP = b"X25519MLKEM768"


def pair(
    authority: TransportAuthority,
    role: Role,
    *,
    now: datetime = NOW,
    hosts: tuple[str, ...] = (),
) -> tuple[bytes, bytes]:
    key = new_transport_key()
    lifetime = timedelta(hours=1)
    certificate = authority.issue(
        public_pem(key), country="AT", role=role, now=now, lifetime=lifetime, hosts=hosts
    )
    return key, certificate


class Exchange:
    """A server that answers every call with the caller's certificate as it saw it."""

    def __init__(self, authority: TransportAuthority, identity: tuple[bytes, bytes]) -> None:
        self.seen: list[Peer] = []
        self._root = authority.certificate_pem
        handler = grpc.unary_unary_rpc_method_handler(self._answer)
        service = grpc.method_handlers_generic_handler("pratique.test", {"WhoAmI": handler})
        self._server = grpc.server(ThreadPoolExecutor(2))
        self._server.add_generic_rpc_handlers((service,))
        credentials = grpc.ssl_server_credentials(
            [identity], root_certificates=self._root, require_client_auth=True
        )
        self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self._server.start()

    def _answer(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        facts = cast("Mapping[str, Sequence[bytes]]", context.auth_context())
        (pem,) = facts["x509_pem_cert"]
        now = datetime.now(UTC)
        self.seen.append(peer_of(pem, authority_pem=self._root, now=now, revoked=frozenset()))
        return bytes(facts["ssl_negotiated_key_exchange_group"][0])

    def close(self) -> None:
        self._server.stop(None).wait()


@pytest.fixture(scope="module")
def authority() -> TransportAuthority:
    return TransportAuthority.create("danube", NOW)


@pytest.fixture(scope="module")
def exchange(authority: TransportAuthority) -> Iterator[Exchange]:
    running = Exchange(
        authority, pair(authority, Role.COORDINATOR, hosts=("localhost", "127.0.0.1"))
    )
    yield running
    running.close()


def call(
    port: int,
    root: TransportAuthority,
    identity: tuple[bytes, bytes] | None,
    host: str = "127.0.0.1",
) -> bytes:
    credentials = grpc.ssl_channel_credentials(root.certificate_pem, *(identity or (None, None)))
    with grpc.secure_channel(f"{host}:{port}", credentials) as channel:
        return bytes(channel.unary_unary(METHOD, None, None)(b"", timeout=5))


def refused(
    port: int,
    root: TransportAuthority,
    identity: tuple[bytes, bytes] | None,
    host: str = "127.0.0.1",
) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call(port, root, identity, host)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    return str(caught.value.details())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("role", Role)
def test_the_server_sees_country_and_role_of_a_certified_peer(
    authority: TransportAuthority, exchange: Exchange, role: Role, host: str
) -> None:
    group = call(exchange.port, authority, pair(authority, role), host)
    assert group == HYBRID_GROUP
    peer = exchange.seen[-1]
    assert (peer.federation, peer.country, peer.role) == ("danube", "AT", role)


def test_a_peer_without_a_certificate_is_refused(
    authority: TransportAuthority, exchange: Exchange
) -> None:
    refused(exchange.port, authority, None)


@pytest.mark.parametrize("federation", ["rhine", "danube"])
def test_a_peer_certified_by_another_authority_is_refused(
    authority: TransportAuthority, exchange: Exchange, federation: str
) -> None:
    stranger = TransportAuthority.create(federation, NOW)
    refused(exchange.port, authority, pair(stranger, Role.NODE))


def test_an_expired_peer_is_refused() -> None:
    long_ago = NOW - timedelta(days=2)
    older = TransportAuthority.create("danube", long_ago)
    late = Exchange(older, pair(older, Role.COORDINATOR, hosts=("localhost", "127.0.0.1")))
    try:
        call(late.port, older, pair(older, Role.NODE))
        refused(late.port, older, pair(older, Role.NODE, now=long_ago))
    finally:
        late.close()


def test_a_node_refuses_an_exchange_of_another_authority(
    authority: TransportAuthority, exchange: Exchange
) -> None:
    stranger = TransportAuthority.create("danube", NOW)
    assert "CERTIFICATE_VERIFY_FAILED" in refused(
        exchange.port, stranger, pair(authority, Role.NODE)
    )


def test_the_certificate_of_the_server_is_refused_as_that_of_a_client(
    authority: TransportAuthority, exchange: Exchange
) -> None:
    refused(exchange.port, authority, pair(authority, Role.COORDINATOR, hosts=("localhost",)))


def test_the_certificate_of_a_node_is_refused_as_that_of_the_exchange(
    authority: TransportAuthority,
) -> None:
    false = Exchange(authority, pair(authority, Role.NODE))
    try:
        details = refused(false.port, authority, pair(authority, Role.NODE))
    finally:
        false.close()
    assert "CERTIFICATE_VERIFY_FAILED" in details


def test_an_exchange_is_refused_under_a_host_that_its_certificate_does_not_name(
    authority: TransportAuthority,
) -> None:
    elsewhere = pair(authority, Role.COORDINATOR, hosts=("exchange.example.org",))
    moved = Exchange(authority, elsewhere)
    try:
        refused(moved.port, authority, pair(authority, Role.NODE))
    finally:
        moved.close()
