"""A node in a child process that a test kills: at a named point, or at any moment.

The child is forked from a warm process, so that a few can be killed every second. It writes the
noise that it draws to a file before it goes on. So a test can compute what a sum contains, and see
that noise was not drawn twice for a sum that may have left.
"""

import json
import os
import secrets
import signal
from hashlib import shake_256
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, event

from tests.support.node_federation import NodeFederation

LARGEST_DRAW = 40
PATIENCE_SECONDS = 60


class RecordedNoise:
    """Small noise, drawn afresh each time and written to a file before it is used."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def draw(self, std: int, size: int) -> NDArray[np.int64]:
        """Return `size` values of fresh noise, whatever `std` is."""
        del std
        drawn = [secrets.randbelow(2 * LARGEST_DRAW) - LARGEST_DRAW for _ in range(size)]
        handle = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(handle, json.dumps(drawn).encode() + b"\n")
        os.close(handle)
        return np.array(drawn, np.int64)


def recorded_draws(file: Path) -> list[list[int]]:
    """Return every draw of a RecordedNoise, in order."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def fixed(size: int) -> bytes:
    """Return the same bytes every time, so that a test can compute sampling and rounding too."""
    return shake_256(b"pratique test").digest(size)


class Death:
    """Where the process is killed: at a named point, or at its n-th statement, as `#n` from 1."""

    def __init__(self) -> None:
        self._at, self._statements = "", 0

    def arm(self, at: str) -> None:
        """Name the point, and count statements from zero."""
        self._at, self._statements = at, 0

    def reach(self, step: str) -> None:
        """Kill the process if this is the point."""
        if step == self._at:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, engine: Engine) -> None:
        """Count before and after each statement of the engine, and at each commit."""
        for moment in ("before_cursor_execute", "after_cursor_execute", "commit"):
            event.listen(engine, moment, self._passed)

    def _passed(self, *_: object) -> None:
        self._statements += 1
        self.reach(f"#{self._statements}")


class CrashingNode:
    """One country's node in a child process, which `begin` or the first `ask` starts."""

    def __init__(self, federation: NodeFederation, country: str) -> None:
        self.federation, self.country = federation, country
        self.draws = federation.folder / f"{country}.draws"
        self._child = 0
        self._link: Connection | None = None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._child != 0

    def begin(self) -> int:
        """Start the process and return its id; the node's database must not be open here."""
        here, there = Pipe()
        child = os.fork()
        if child == 0:
            here.close()
            os._exit(self._served(there))
        there.close()
        self._child, self._link = child, here
        return child

    def ask(
        self, frame: bytes, *, die_at: str = "", seconds: float = PATIENCE_SECONDS
    ) -> bytes | None:
        """Return the reply; None if the node was killed, at `die_at` or after `seconds`."""
        if self._link is None:
            self.begin()
        assert self._link is not None
        try:
            self._link.send_bytes(die_at.encode())
            self._link.send_bytes(frame)
            if self._link.poll(seconds):
                return self._link.recv_bytes()
        except (EOFError, ConnectionError):
            self._reap()
            return None
        self.kill()
        return None

    def kill(self) -> None:
        """Kill the process, if it runs."""
        if self._child:
            os.kill(self._child, signal.SIGKILL)
            self._reap()

    def _reap(self) -> None:
        status = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        if self._link is not None:
            self._link.close()
        self._child, self._link = 0, None
        if status != -signal.SIGKILL:
            raise AssertionError(f"The node ended with {status}, and nobody killed it")

    def _served(self, link: Connection) -> int:
        """Start the node with the first message, and answer until the other end is closed.

        Returns the exit status of the process.
        """
        death = Death()
        try:
            death.arm(link.recv_bytes().decode())
            node = self.federation.start(
                self.country, noise=RecordedNoise(self.draws), entropy=fixed, failpoint=death.reach
            )
            death.watch(node.parts.engine)
            while True:
                link.send_bytes(node.handle(link.recv_bytes()))
                death.arm(link.recv_bytes().decode())
        except EOFError:
            return 0
        except BaseException:  # noqa: BLE001  a forked child must not return into pytest
            return 99
