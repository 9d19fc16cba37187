"""The public port: bytes pass unchanged, silent connections cost nothing and end in time."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from governance.runtime.log_fields import admit
from keys.certificates import Peer, Role
from server.errors import CoordinatorFault
from server.exchange import connection_limits, public_port
from server.exchange.connection_limits import Room
from server.exchange.public_port import PublicPort, listeners

HOST = "127.0.0.1"
ROOM = Room(total=8, of_address=4)
MEMBER = Peer("danube", "AT", Role.NODE, 1, datetime(2027, 1, 1, tzinfo=UTC))
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """Takes the place of gRPC: sends back what it gets, and remembers each connection's name."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = writer.get_extra_info("peername")
        self.names.append("unix-abstract:" + name[1:].decode())
        with suppress(ConnectionError):
            while content := await reader.read(2**16):
                writer.write(content)
                await writer.drain()
        await closed(writer)


class World:
    """A public port before an echo."""

    def __init__(self, port: PublicPort, number: int, echo: Echo) -> None:
        self.port, self.number, self.echo = port, number, echo
        self.open: list[Streams] = []

    async def connect(self) -> Streams:
        self.open.append(await asyncio.open_connection(HOST, self.number))
        return self.open[-1]


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def said(streams: Streams, content: bytes) -> bytes:
    """Send bytes, and return what comes back; nothing if the connection has ended."""
    reader, writer = streams
    try:
        writer.write(content)
        await writer.drain()
        return await asyncio.wait_for(reader.readexactly(len(content)), 5)
    except (ConnectionError, asyncio.IncompleteReadError):
        return b""


@pytest.fixture
def world(tmp_path: Path) -> Callable[[Callable[[World], Awaitable[None]]], None]:
    """Run a test against an open port."""

    async def run(test: Callable[[World], Awaitable[None]]) -> None:
        inner, echo = tmp_path / "inner.sock", Echo()
        server = await asyncio.start_unix_server(echo.serve, inner)
        port = PublicPort(ROOM)
        opened = World(port, port.open(f"{HOST}:0", inner), echo)
        try:
            await test(opened)
        finally:
            await port.close()
            for _, writer in opened.open:
                await closed(writer)
            server.close()

    return lambda test: asyncio.run(run(test))


def test_bytes_pass_unchanged_both_ways(world: Any) -> None:
    async def test(there: World) -> None:
        content = bytes(range(256)) * 4_096
        streams = await there.connect()
        reading = asyncio.create_task(streams[0].readexactly(len(content)))
        streams[1].write(content)
        assert await reading == content

    world(test)


def test_a_silent_connection_does_not_reach_grpc(world: Any) -> None:
    async def test(there: World) -> None:
        await there.connect()
        assert await said(await there.connect(), b"x") == b"x"
        assert len(there.echo.names) == 1

    world(test)


def test_a_silent_connection_ends_when_its_address_has_too_many(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_limits, "SETTLED_SECONDS", 0.0)

    async def test(there: World) -> None:
        talking, silent = await there.connect(), await there.connect()
        assert await said(talking, b"x") == b"x"
        others = [await there.connect() for _ in range(ROOM.of_address - 1)]
        assert await silent[0].read() == b""
        assert await said(talking, b"x") == b"x"
        assert [await said(other, b"y") for other in others] == [b"y"] * len(others)

    world(test)


def test_a_stranger_without_room_is_refused_at_once(world: Any) -> None:
    async def test(there: World) -> None:
        for _ in range(ROOM.of_address):
            await there.connect()
        refused = await there.connect()
        assert await refused[0].read() == b""
        assert await said(there.open[0], b"x") == b"x"

    world(test)


def test_a_connection_with_a_member_s_call_stays_and_others_end_in_time(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_limits, "FIRST_CALL_SECONDS", 0.0)
    monkeypatch.setattr(public_port, "CHECK_SECONDS", 0.3)

    async def test(there: World) -> None:
        member, stranger = await there.connect(), await there.connect()
        await said(member, b"x")
        there.port.prove(there.echo.names[0], MEMBER)
        assert there.port.address(there.echo.names[0]) == "127.0.0.1"
        assert there.port.address("unix-abstract:ended") == ""
        assert await stranger[0].read() == b""
        assert await said(member, b"x") == b"x"
        there.port.disprove(there.echo.names[0])
        assert await member[0].read() == b""

    world(test)


def test_a_connection_is_ended_by_its_name(world: Any) -> None:
    async def test(there: World) -> None:
        one, other = await there.connect(), await there.connect()
        await said(one, b"x")
        await said(other, b"x")
        for name in (there.echo.names[0], "unix-abstract:unknown"):
            there.port.end(name)
        assert await said(one, b"x") == b""
        assert await said(other, b"x") == b"x"

    world(test)


def test_connections_that_ended_are_reported_together(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public_port, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(public_port, "REPORT_SECONDS", 0.0)
    reports: asyncio.Queue[Any] = asyncio.Queue()
    monkeypatch.setattr(
        public_port._log, "warning", lambda _, extra: reports.put_nowait(admit(extra))
    )

    async def test(there: World) -> None:
        for _ in range(ROOM.of_address + 3):
            await there.connect()
        counted = 0
        while counted < 3:
            report = await asyncio.wait_for(reports.get(), 5)
            assert "are open" in report["what"]
            counted += report["count"]
        assert counted == 3

    world(test)


def test_a_connection_that_grpc_does_not_take_ends(tmp_path: Path) -> None:
    async def test() -> None:
        inner = tmp_path / "nothing.sock"
        inner.touch()
        port = PublicPort(ROOM)
        streams = await asyncio.open_connection(HOST, port.open(f"{HOST}:0", inner))
        assert await said(streams, b"x") == b""
        await port.close()
        await closed(streams[1])

    asyncio.run(test())


def test_a_port_that_is_closed_ends_its_connections_and_leaves_no_task(world: Any) -> None:
    async def test(there: World) -> None:
        silent, passed_on = await there.connect(), await there.connect()
        await said(passed_on, b"x")
        await there.port.close()
        assert await silent[0].read() == await passed_on[0].read() == b""
        assert not there.port._tasks

    world(test)


@pytest.mark.parametrize("address", ["192.0.2.1:7443", "nowhere.invalid:1"])
def test_an_address_that_is_not_here_is_refused(tmp_path: Path, address: str) -> None:
    inner = tmp_path / "inner.sock"
    inner.touch()
    with pytest.raises(CoordinatorFault, match="cannot listen") as caught:
        PublicPort(ROOM).open(address, inner)
    assert caught.value.why


@pytest.mark.parametrize("everywhere", ["0.0.0.0", "[::]"])  # noqa: S104 (the setting of an operator)
def test_any_address_means_both_families(everywhere: str) -> None:
    opened = listeners(f"{everywhere}:0")
    number = opened[0].getsockname()[1]
    hosts = (HOST, "::1") if socket.has_dualstack_ipv6() else (HOST,)
    for host in hosts:
        with closing(socket.create_connection((host, number), 5)):
            pass
    for listener in opened:
        listener.close()
