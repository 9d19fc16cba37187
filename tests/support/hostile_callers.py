"""Floods against an exchange, to run with `tests.support.flood`, each until it is stopped.

Strangers take connections; guests or members leave calls unfinished, or send too much.
"""

import asyncio
import itertools
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.synchronize import Event
from typing import Any

import grpc

from protocols.proto.exchange_pb2 import FetchRequest, RequestPart
from protocols.wire.request_parts import PART_BYTES
from tests.support.exchange_server import LOOPBACK, Caller
from tests.support.flood import connect_from

CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(90)
"""The beginning of a handshake that never continues."""
OPENINGS = (b"", CLIENT_HELLO, b"GET / HTTP/1.1\r\n", b"\0")
MANY_ADDRESSES = tuple(f"127.1.{net}.{host}" for net in range(4) for host in range(1, 101))
CALLS = 1_100
LARGE_CALLS, LARGE = 24, 60 * 2**20
CONNECTIONS = 12
SERVICE = "/pratique.exchange.v1.Exchange/"


def strangers(
    ready: Event,
    stop: Event,
    port: int,
    sources: tuple[str, ...],
    openings: tuple[bytes, ...],
    number: int,
) -> None:
    """Keep this many connections open, and replace those that the exchange ends."""
    chosen = itertools.cycle(itertools.product(sources, openings))
    open_: dict[int, socket.socket] = {}
    watched = select.poll()
    while not stop.is_set():
        for ended, _ in watched.poll(5):
            watched.unregister(ended)
            open_.pop(ended).close()
        while len(open_) < number and not stop.is_set():
            source, opening = next(chosen)
            with suppress(OSError):
                connection = connect_from(source, port)
                open_[connection.fileno()] = connection
                watched.register(connection, select.POLLIN)
                connection.sendall(opening)
        ready.set()
    for connection in open_.values():
        connection.close()


def channels(port: int, authority: bytes, who: Caller, count: int) -> list[grpc.Channel]:
    """Return channels with a connection each."""
    credentials = grpc.ssl_channel_credentials(authority, who.key, who.certificate)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    return [
        grpc.secure_channel(f"{LOOPBACK}:{port}", credentials, options=options)
        for _ in range(count)
    ]


def from_elsewhere(port: int, source: str) -> int:
    """Forward connections to `port` from another address, in a thread; return the port to use."""
    loop = asyncio.new_event_loop()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(LOOPBACK, port, local_addr=(source, 0))
        await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))

    server = loop.run_until_complete(asyncio.start_server(forward, LOOPBACK, 0))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return int(server.sockets[0].getsockname()[1])


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what arrives, until either side ends."""
    with suppress(OSError):
        while received := await reader.read(2**16):
            writer.write(received)
            await writer.drain()
    writer.close()


def begun(channel: grpc.Channel, name: str, messages: Iterator[bytes]) -> Any:
    """Begin a call with these bytes as its messages; return its future."""
    return channel.stream_unary(SERVICE + name, None, None).future(messages)


def unfinished(ready: Event, stop: Event, port: int, authority: bytes, who: Caller) -> None:
    """Open calls that are never continued, of every kind, over few connections."""
    opened = channels(port, authority, who, CONNECTIONS)
    ended = threading.Event()

    def never() -> Iterator[bytes]:
        ended.wait()
        yield b""

    names = ("Enrol", "Renew", "Fetch", "Submit", "Relay")
    calls = [
        begun(opened[number % CONNECTIONS], names[number % 5], never()) for number in range(CALLS)
    ]
    ready.set()
    stop.wait()
    ended.set()
    for call in calls:
        call.cancel()


def oversized(ready: Event, stop: Event, port: int, authority: bytes, who: Caller) -> None:
    """Make calls with large bodies, whole and in parts, over and over."""
    opened = channels(port, authority, who, CONNECTIONS)
    whole = FetchRequest(path="x" * LARGE).SerializeToString()
    part = RequestPart(size=LARGE, content=bytes(PART_BYTES)).SerializeToString()

    def endless() -> Iterator[bytes]:
        while not stop.is_set():
            yield part

    while not stop.is_set():
        calls = [
            begun(
                opened[number % CONNECTIONS],
                ("Enrol", "Relay", "Submit")[number % 3],
                endless() if number % 2 else iter([whole]),
            )
            for number in range(LARGE_CALLS)
        ]
        for call in calls:
            call.exception()
        ready.set()
