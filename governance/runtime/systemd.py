"""Notify systemd that a daemon is ready, what it does, that it is alive, and that it stops.

The protocol of sd_notify(3): datagrams of `NAME=value` to the socket that NOTIFY_SOCKET names. The
watchdog gets "alive" at half of WATCHDOG_USEC, and only while no loop of the daemon is stuck: a
daemon that hangs is killed and restarted. Without systemd nothing is sent.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, MutableMapping, Sequence

from governance.runtime.log_fields import plain

SOCKET, MICROSECONDS, PROCESS = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
SEND_SECONDS = 1.0
MOST_DIGITS = 20
"""Of a number of microseconds: systemd's have 64 bits."""
_log = logging.getLogger("pratique.process")


class Supervisor:
    """The service manager that started this process, if one did."""

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        """Remove the variables from `environment`: no child process may notify for this one."""
        variables = os.environ if environment is None else environment
        self._address = _address(variables.pop(SOCKET, ""))
        interval, process = variables.pop(MICROSECONDS, ""), variables.pop(PROCESS, "")
        self.watchdog_seconds = _watchdog(interval, process)

    def ready(self, says: str) -> None:
        """Notify that the daemon is ready for its work."""
        self._send(f"READY=1\nSTATUS={plain(says)}")

    def status(self, says: str) -> None:
        """Notify in a sentence what the daemon is doing."""
        self._send(f"STATUS={plain(says)}")

    def stopping(self) -> None:
        """Notify that the daemon is about to stop."""
        self._send("STOPPING=1\nSTATUS=ending")

    def alive(self) -> None:
        """Notify that the daemon is not stuck."""
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        """Send the text; ignore errors, since the daemon works without a manager that listens."""
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.settimeout(SEND_SECONDS)
                channel.sendto(text.encode(), self._address)
        except OSError:
            return


class Watchdog:
    """Notifies the supervisor that the daemon is alive, as long as no loop is stuck."""

    def __init__(self, supervisor: Supervisor, stuck: Callable[[], Sequence[str]]) -> None:
        """`stuck` returns the loops that are stuck."""
        self._supervisor, self._stuck = supervisor, stuck
        self._stop = threading.Event()
        self._logged: Sequence[str] = ()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Start watching; without a watchdog in the unit, a stuck loop is only logged."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        self._thread.join(SEND_SECONDS)

    def _watch(self) -> None:
        seconds = (self._supervisor.watchdog_seconds or DEFAULT_SECONDS) / 2
        self.look()
        while not self._stop.wait(seconds):
            self.look()

    def look(self) -> None:
        """Check once: notify the supervisor, or log the stuck loops if they changed."""
        stuck = self._stuck()
        if not stuck and self._supervisor.watchdog_seconds:
            self._supervisor.alive()
        if stuck and stuck != self._logged:
            _log.critical("stuck", extra={"what": ", ".join(stuck)})
        self._logged = stuck


DEFAULT_SECONDS = 60.0


def _address(text: str) -> str | None:
    """Return a socket's address: a path, or a name in the abstract namespace."""
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else None


def _watchdog(microseconds: str, process: str) -> float | None:
    """Return how many seconds the watchdog waits, None if it is not for this process."""
    usable = microseconds.isdecimal() and len(microseconds) <= MOST_DIGITS
    if not usable or process not in ("", str(os.getpid())):
        return None
    return int(microseconds) / 1e6 or None
