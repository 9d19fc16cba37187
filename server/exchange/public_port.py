"""The public port: accepts TCP connections within limits, and passes their bytes to gRPC.

gRPC listens on a socket that only this process's user can reach. It sees each connection under a
name of its own, so that a call can be traced to its connection here. TLS is gRPC's: nothing is
decrypted here. A connection that sends nothing costs one descriptor and is never passed on.
"""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from pathlib import Path

from keys.certificates import Peer
from keys.errors import reason_of
from server.errors import CoordinatorFault
from server.exchange.connection_limits import ConnectionLimits, Room, network_of
from server.exchange.fencing import ACTS, Claim
from server.home import ANY_ADDRESS

BUFFER = 64 * 2**10
"""The most bytes of a connection in each direction that are kept here."""
BACKLOG = 1_024
"""How many connections the kernel keeps until they are accepted (listen(2))."""
AT_A_TIME = 4
"""How many connections are accepted or ended before other work has its turn."""
CHECK_SECONDS = 1.0
STALLED_SECONDS = 60.0
"""After how long without progress a connection ends whose other side takes no bytes."""
NO_DESCRIPTOR_SECONDS = 0.1
REPORT_SECONDS = 60.0
NAMED = "unix-abstract:"
"""How gRPC writes a name in the abstract namespace (unix(7))."""

_log = logging.getLogger("pratique.exchange")


class PublicPort:
    """The exchange's public port. Use it in one event loop only."""

    def __init__(self, room: Room) -> None:
        self._limits = ConnectionLimits(room)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._named: dict[str, tuple[int, str]] = {}
        """The number and address of each connection that was passed on, by its name at gRPC."""
        self._listeners: list[socket.socket] = []
        self._sweeper: asyncio.Task[None] | None = None
        self._ended = 0
        self._fault: str | None = None
        """Why the operating system let no connection be accepted, in this minute."""

    def open(self, address: str, inner: Path) -> int:
        """Listen at `address`, pass connections on to gRPC at `inner`; return the port.

        Raises CoordinatorFault if nothing can listen there.
        """
        inner.chmod(0o600)
        try:
            self._listeners = listeners(address)
        except (OSError, UnicodeError) as error:
            raise CoordinatorFault(
                f"The exchange cannot listen at {address}",
                why=reason_of(error),
                fix="end the program that listens there, or correct `listen` in coordinator.yaml",
            ) from error
        for listener in self._listeners:
            self._watch(listener, inner)
        self._sweeper = self._run(self._end_overdue())
        return int(self._listeners[0].getsockname()[1])

    def address(self, name: str) -> str:
        """Return from where the connection comes that gRPC calls `name`; empty if it has ended."""
        _, address = self._named.get(name, (0, ""))
        return network_of(address) if address else ""

    def prove(self, name: str, peer: Peer, claim: Claim = ACTS) -> None:
        """Note a call of this party over the connection that gRPC calls `name`."""
        number, address = self._named.get(name, (0, ""))
        if number:
            self._end(self._limits.prove(number, peer, address, self._now(), claim))

    def disprove(self, name: str) -> None:
        """Note a call with a certificate that is not valid; the connection ends soon."""
        self._limits.disprove(self._number(name), self._now())

    def end(self, name: str) -> None:
        """End the connection that gRPC calls `name`."""
        self._end([self._number(name)])

    async def close(self) -> None:
        """Accept no more connections, and end all."""
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        open_ = list(self._tasks.values())
        if self._sweeper is not None:
            self._sweeper.cancel()
            open_.append(self._sweeper)
        self._end(list(self._tasks))
        await asyncio.gather(*open_, return_exceptions=True)

    def _number(self, name: str) -> int:
        return self._named.get(name, (0, ""))[0]

    def _end(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._limits.ended(number)
            task = self._tasks.get(number)
            if task is not None:
                task.cancel()
                self._ended += 1

    async def _end_overdue(self) -> None:
        """End connections that last too long, and report from time to time how many ended."""
        reported = self._now()
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            overdue = self._limits.overdue(self._now())
            for start in range(0, len(overdue), AT_A_TIME):
                self._end(overdue[start : start + AT_A_TIME])
                await asyncio.sleep(0)
            if self._ended and self._now() - reported >= REPORT_SECONDS:
                what = f"to keep room, or late; {len(self._limits)} are open"
                details = {"count": self._ended, "what": what, "why": self._fault}
                _log.warning("connections ended", extra=details)
                self._ended, self._fault, reported = 0, None, self._now()

    def _watch(self, listener: socket.socket, inner: Path) -> None:
        """Accept connections whenever there are some."""
        if listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener, inner)

    def _accept(self, listener: socket.socket, inner: Path) -> None:
        """Accept some connections; other work has its turn before the next ones."""
        for _ in range(AT_A_TIME):
            try:
                connection, peer = listener.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:  # no descriptor left: connections that end free some
                self._ended, self._fault = self._ended + 1, reason_of(error)
                loop = asyncio.get_running_loop()
                loop.remove_reader(listener)
                loop.call_later(NO_DESCRIPTOR_SECONDS, self._watch, listener, inner)
                return
            connection.setblocking(False)  # noqa: FBT003 (the standard library's signature)
            self._begin(connection, str(peer[0]), inner)

    def _begin(self, connection: socket.socket, address: str, inner: Path) -> None:
        admitted = self._limits.admit(address, self._now())
        if admitted is None:
            connection.close()
            self._ended += 1
            return
        number, ending = admitted
        self._end(ending)
        task = self._run(self._serve(number, connection, address, inner))
        self._tasks[number] = task
        task.add_done_callback(lambda _: self._forget(number, connection))

    def _forget(self, number: int, connection: socket.socket) -> None:
        connection.close()
        self._limits.ended(number)
        self._tasks.pop(number, None)

    async def _serve(
        self, number: int, connection: socket.socket, address: str, inner: Path
    ) -> None:
        """Pass on bytes both ways once the first ones have arrived, until one side ends."""
        loop, name = asyncio.get_running_loop(), secrets.token_hex(16)
        with suppress(OSError, TimeoutError), connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            first = await loop.sock_recv(connection, BUFFER)
            if not first:
                return
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as grpc_side:
                grpc_side.setblocking(False)  # noqa: FBT003 (the standard library's signature)
                grpc_side.bind(f"\0{name}")
                grpc_side.connect(os.fspath(inner))
                self._named[NAMED + name] = number, address
                self._limits.received(number)
                try:
                    await loop.sock_sendall(grpc_side, first)
                    await _first_of(
                        _pass(grpc_side, connection, lambda: None),
                        _pass(connection, grpc_side, lambda: self._limits.received(number)),
                    )
                finally:
                    del self._named[NAMED + name]

    def _run(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


async def _first_of(*works: Coroutine[None, None, None]) -> None:
    """Run all, and end the others as soon as one has ended."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass(
    source: socket.socket, sink: socket.socket, on_received: Callable[[], None]
) -> None:
    """Send everything from one socket to the other. Raises OSError, TimeoutError."""
    loop = asyncio.get_running_loop()
    while received := await loop.sock_recv(source, BUFFER):
        on_received()
        async with asyncio.timeout(STALLED_SECONDS):
            await loop.sock_sendall(sink, received)


def listeners(address: str) -> list[socket.socket]:
    """Return sockets that listen at `host:port`, at every address of that host.

    `0.0.0.0` and `[::]` mean every address of this machine, IPv6 included. Raises OSError.
    """
    host, port = address.rsplit(":", 1)
    host = host.strip("[]")
    if host in ANY_ADDRESS and socket.has_dualstack_ipv6():
        everywhere = socket.create_server(
            ("::", int(port)), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True
        )
        return [_not_blocking(everywhere)]
    opened: list[socket.socket] = []
    faults: list[OSError] = []
    for family, _, _, _, (name, number, *_) in socket.getaddrinfo(
        host, int(port), type=socket.SOCK_STREAM
    ):
        chosen = opened[0].getsockname()[1] if opened else number  # port 0: one port for all
        try:
            listener = socket.create_server((name, chosen), family=family, backlog=BACKLOG)
            opened.append(_not_blocking(listener))
        except OSError as error:
            faults.append(error)
    if not opened:
        raise faults[0]
    return opened


def _not_blocking(listener: socket.socket) -> socket.socket:
    listener.setblocking(False)  # noqa: FBT003 (the standard library's signature)
    return listener
