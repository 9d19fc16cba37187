"""Strangers who open many connections at once do not end the exchange."""

import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from keys.certificates import Role, TransportAuthority
from server.exchange.relay import Relay
from tests.support.exchange_process import exchange_process
from tests.support.exchange_server import (
    LOOPBACK,
    OpenExchange,
    ScriptedSuperLink,
    ServedFiles,
    caller,
    now,
)

HANDSHAKES, AT_ONCE = 2_000, 16
"""The exchange ended after about 200 when each handshake got a new configuration."""


def test_many_handshakes_at_once_do_not_end_the_exchange() -> None:
    stranger = ssl.create_default_context()
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    stranger.set_alpn_protocols(["h2"])

    with exchange_process() as victim, ThreadPoolExecutor(AT_ONCE) as pool:

        def begin_handshake(_: int) -> int:
            with (
                suppress(OSError),
                socket.create_connection((LOOPBACK, victim.port), timeout=10) as raw,
            ):
                stranger.wrap_socket(raw).close()
                return 1
            return 0

        done = sum(pool.map(begin_handshake, range(HANDSHAKES)))
        assert victim.process.poll() is None
        assert done > HANDSHAKES / 2


def test_a_new_certificate_is_shown_from_the_next_handshake_on() -> None:
    authority = TransportAuthority.create("danube", now())
    relay = Relay(ScriptedSuperLink().forward)
    with OpenExchange(authority, relay, enrolments=None, documents=ServedFiles()) as running:
        first, again = shown(running), shown(running)
        other = caller(authority, "ZZ", Role.COORDINATOR, hosts=(LOOPBACK, "localhost"))
        running.shown.pair = (other.key, other.certificate)
        assert first == again != shown(running)
        assert shown(running) == ssl.PEM_cert_to_DER_cert(other.certificate.decode())


def shown(exchange: OpenExchange) -> bytes:
    """Return the certificate that a new connection is shown."""
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((LOOPBACK, exchange.port)))
