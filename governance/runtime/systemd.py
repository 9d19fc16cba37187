"""Notifies systemd: that a daemon is ready, what it does, that it ends, and that it lives.

The protocol of sd_notify(3): datagrams of `NAME=value` to the socket that NOTIFY_SOCKET names. The
watchdog gets "alive" at half of WATCHDOG_USEC, and only while the daemon's loops move: a daemon
that hangs is killed and started again. Without systemd nothing is said.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, MutableMapping, Sequence

from governance.runtime.log_fields import plain

SOCKET, MICROSECONDS, PROCESS = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
SEND_SECONDS = 1.0
_log = logging.getLogger("pratique.process")


class Supervisor:
    """The service manager that started this process, if one did."""

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        """Take the variables out of `environment`: no child process is to speak for this one."""
        found = os.environ if environment is None else environment
        self._address = _address(found.pop(SOCKET, ""))
        self.watchdog_seconds = _watchdog(found.pop(MICROSECONDS, ""), found.pop(PROCESS, ""))

    def ready(self, says: str) -> None:
        """Say that the daemon does its work from now on."""
        self._send(f"READY=1\nSTATUS={plain(says)}")

    def status(self, says: str) -> None:
        """Say in a sentence what the daemon is doing."""
        self._send(f"STATUS={plain(says)}")

    def stopping(self) -> None:
        """Say that the daemon is about to end."""
        self._send("STOPPING=1\nSTATUS=ending")

    def alive(self) -> None:
        """Say that the daemon is not stuck."""
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        """Send it; a manager that does not listen changes nothing for the daemon."""
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.settimeout(SEND_SECONDS)
                channel.sendto(text.encode(), self._address)
        except OSError:
            return


class Watchdog:
    """Notifies the supervisor that the daemon lives while nothing is stuck. Start it, close it."""

    def __init__(self, supervisor: Supervisor, stuck: Callable[[], Sequence[str]]) -> None:
        """`stuck` names the loops that do not move."""
        self._supervisor, self._stuck = supervisor, stuck
        self._stop = threading.Event()
        self._said: Sequence[str] = ()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin; without a watchdog in the unit, the log alone hears of a loop that is stuck."""
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join(SEND_SECONDS)

    def _watch(self) -> None:
        seconds = (self._supervisor.watchdog_seconds or DEFAULT_SECONDS) / 2
        self.look()
        while not self._stop.wait(seconds):
            self.look()

    def look(self) -> None:
        """Look once: notify the supervisor, or log what is stuck, once each time it changes."""
        stuck = self._stuck()
        if not stuck and self._supervisor.watchdog_seconds:
            self._supervisor.alive()
        if stuck and stuck != self._said:
            _log.critical("stuck", extra={"what": ", ".join(stuck)})
        self._said = stuck


DEFAULT_SECONDS = 60.0


def _address(text: str) -> str | None:
    """Return a socket's address: a path, or a name in the abstract namespace."""
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else None


def _watchdog(microseconds: str, process: str) -> float | None:
    """Return how many seconds the watchdog waits, None if it is not for this process."""
    if not microseconds.isdecimal() or process not in ("", str(os.getpid())):
        return None
    return int(microseconds) / 1e6 or None
