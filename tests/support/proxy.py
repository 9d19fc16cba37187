"""A TCP proxy that behaves like a bad network.

It delays, slows, cuts, duplicates and reorders what it forwards, and leaves connections half-open:
data sent into such a connection is accepted and never arrives, and neither side is notified.
"""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from typing import Self

from tests.support.exchange_server import LOOPBACK, LoopThread

SEGMENT = 16 * 2**10
"""The most bytes that are forwarded at once. Each probability below is per segment."""
SETTLING = 0.05
"""Seconds in which the loop runs what is due: a task that begins, or a connection that ends."""
MAX_UNDER_WAY = 64
"""How many segments wait in one direction; then the sender has to wait."""


@dataclass(frozen=True)
class Weather:
    """What happens to segments, as probabilities; `delay` is in seconds in each direction."""

    delay: float = 0.0
    bandwidth: float = 0.0
    """Bytes per second in each direction; 0 is unlimited."""
    cut: float = 0.0
    """The connection ends for both sides."""
    mute: float = 0.0
    """The connection goes half-open in both directions."""
    half_mute: float = 0.0
    """The connection goes half-open in the segment's direction only."""
    double: float = 0.0
    """The segment arrives twice."""
    swap: float = 0.0
    """The segment arrives after the one that follows it."""


FAIR = Weather()


class _Connection:
    """One connection through the proxy: two pipes that end together."""

    def __init__(self, proxy: "FaultProxy", near: asyncio.StreamWriter) -> None:
        self.proxy, self.near = proxy, near
        self.far: asyncio.StreamWriter | None = None
        self.muted: set[str] = set()
        self.ended = asyncio.Event()

    async def run(self, reader: asyncio.StreamReader, target: tuple[str, int]) -> None:
        try:
            far_reader, self.far = await asyncio.open_connection(*target)
            pipes = [
                asyncio.ensure_future(self._pipe("up", reader, self.far)),
                asyncio.ensure_future(self._pipe("down", far_reader, self.near)),
            ]
            _, left = await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
            for pipe in left:
                pipe.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)
        except OSError:
            return  # nothing listens at the target
        finally:
            self.cut()

    async def _pipe(
        self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Read without delay, and write each segment when it is due."""
        due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MAX_UNDER_WAY)
        sender = asyncio.ensure_future(self._send(way, due, writer))
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(SEGMENT):
                await due.put((loop.time() + self.proxy.weather.delay, data))
            if self.muted:  # half-open: not even the end is reported
                await self.ended.wait()
            await due.put((loop.time() + self.proxy.weather.delay, b""))
            await sender
        except OSError:
            return
        finally:
            sender.cancel()

    async def _send(
        self, way: str, due: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter
    ) -> None:
        loop, proxy = asyncio.get_running_loop(), self.proxy
        kept = b""
        while True:
            when, data = await due.get()
            await asyncio.sleep(when - loop.time())
            if not data:
                return
            event = proxy.draw(way)
            if event == "cut":
                self.cut()
                return
            if event in ("mute", "half_mute"):
                self.muted |= {"up", "down"} if event == "mute" else {way}
            if way in self.muted:
                continue
            if event == "swap" and not kept:
                kept = data
                continue
            sent, kept = data + kept + (data if event == "double" else b""), b""
            try:
                writer.write(sent)
                await writer.drain()
            except OSError:
                self.cut()
                return
            proxy.bytes[way] += len(sent)
            if proxy.weather.bandwidth:
                await asyncio.sleep(len(sent) / proxy.weather.bandwidth)

    def cut(self) -> None:
        """Abort the connection for both sides."""
        self.ended.set()
        for writer in (self.near, self.far):
            if writer is not None:
                writer.transport.abort()


class FaultProxy:
    """Listens on a free port of loopback and forwards to `port`; the weather may change."""

    def __init__(self, port: int, thread: LoopThread, *, seed: int = 1) -> None:
        self.weather = FAIR
        self.events: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self._target, self._thread = (LOOPBACK, port), thread
        self._random = random.Random(seed)  # noqa: S311 (the same weather every time)
        self._connections: set[_Connection] = set()
        self._ordered: list[str] = []
        self._server = thread.run(asyncio.start_server(self._accept, LOOPBACK, 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.events["connection"] += 1
        connection = _Connection(self, writer)
        self._connections.add(connection)
        try:
            await connection.run(reader, self._target)
        finally:
            self._connections.discard(connection)

    def draw(self, way: str) -> str:
        """Return what happens to the next segment: the next ordered event, or a random one."""
        event = self._ordered.pop(0) if self._ordered else self._by_chance()
        if event:
            self.events[event] += 1
        self.events[way] += 1
        return event

    def _by_chance(self) -> str:
        left = self._random.random()
        for name in ("cut", "mute", "half_mute", "double", "swap"):
            left -= getattr(self.weather, name)
            if left < 0:
                return name
        return ""

    def order(self, *events: str) -> None:
        """Set the events of the next segments, one each; "" is normal delivery."""
        self._thread.loop.call_soon_threadsafe(self._ordered.extend, events)

    def mute_all(self, *ways: str) -> None:
        """Make every open connection half-open, in the given directions or in both."""
        self._thread.loop.call_soon_threadsafe(
            self._each, lambda connection: connection.muted.update(ways or ("up", "down"))
        )

    def _each(self, act: object) -> None:
        for connection in list(self._connections):
            if callable(act):
                act(connection)

    def close(self) -> None:
        """Stop listening and cut all connections."""

        async def end() -> None:
            self._server.close()
            await asyncio.sleep(SETTLING)  # one that was accepted just before begins now
            while self._connections:
                self._each(_Connection.cut)
                await asyncio.sleep(SETTLING)
            await self._server.wait_closed()

        self._thread.run(end())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
