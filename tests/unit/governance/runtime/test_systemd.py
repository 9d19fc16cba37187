"""Notifications to a service manager over real datagram sockets, and when they stop."""

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from governance.runtime.progress import Progress
from governance.runtime.systemd import Supervisor, Watchdog
from tests.support.captured_logs import Lines
from tests.support.waiting import WAIT_SECONDS, wait_until

TENTH = "100000"
"""WATCHDOG_USEC in these tests: a tenth of a second."""


class Manager:
    """A service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(WAIT_SECONDS)

    def heard(self) -> str:
        return self.socket.recv(65536).decode()

    def quiet(self, seconds: float) -> bool:
        """Return whether nothing arrives for a while; earlier messages are ignored."""
        self.socket.setblocking(False)
        try:
            while self.socket.recv(65536):
                continue
        except BlockingIOError:
            pass
        self.socket.settimeout(seconds)
        try:
            return not self.socket.recv(65536)
        except TimeoutError:
            return True


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "abstract":
        return f"@pratique-test-{os.getpid()}-{time.monotonic_ns()}"
    return str(tmp_path_factory.mktemp("n") / "notify")


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    manager = Manager("\0" + address[1:] if address.startswith("@") else address)
    yield manager
    manager.socket.close()


def test_the_manager_receives_each_state(address: str, manager: Manager) -> None:
    supervisor = Supervisor({"NOTIFY_SOCKET": address})
    supervisor.ready("connecting")
    supervisor.status("connected")
    supervisor.alive()
    supervisor.stopping()
    assert manager.heard() == "READY=1\nSTATUS=connecting"
    assert manager.heard() == "STATUS=connected"
    assert manager.heard() == "WATCHDOG=1"
    assert manager.heard() == "STOPPING=1\nSTATUS=ending"


def test_a_status_sentence_cannot_inject_other_notifications(
    address: str, manager: Manager
) -> None:
    Supervisor({"NOTIFY_SOCKET": address}).status("lost\nMAINPID=1\nWATCHDOG=trigger")
    assert manager.heard() == "STATUS=lost\\u{a}MAINPID=1\\u{a}WATCHDOG=trigger"


def test_no_child_inherits_the_socket(address: str, manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "A": "b"}
    Supervisor(environment)
    assert environment == {"A": "b"}


@pytest.mark.parametrize("where", ["", "relative", "/nowhere/at/all"])
def test_without_a_manager_nothing_happens(where: str) -> None:
    supervisor = Supervisor({"NOTIFY_SOCKET": where} if where else {})
    supervisor.ready("x")
    assert supervisor.watchdog_seconds is None


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "9" * 400}, None),
        ({"WATCHDOG_USEC": "9" * 5_000}, None),
        ({}, None),
    ],
)
def test_the_watchdog_s_time_is_read(given: dict[str, str], seconds: float | None) -> None:
    assert Supervisor(given).watchdog_seconds == seconds


def watchdog(address: str, progress: Progress) -> Watchdog:
    supervisor = Supervisor({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": TENTH})
    watchdog = Watchdog(supervisor, progress.stuck)
    watchdog.start()
    return watchdog


def test_it_notifies_while_the_loops_make_progress(address: str, manager: Manager) -> None:
    progress = Progress()
    progress.moved("serve", 60)
    started = watchdog(address, progress)
    assert [manager.heard() for _ in range(4)] == ["WATCHDOG=1"] * 4
    started.close()
    assert manager.quiet(0.3)


def test_it_stops_once_a_loop_is_stuck_and_names_the_loop(
    address: str, manager: Manager, lines: Lines
) -> None:
    progress, go_on = Progress(), threading.Event()

    def loop() -> None:
        while not go_on.wait(0.01):
            progress.moved("serve", 0.3)

    moving = threading.Thread(target=loop)
    moving.start()
    progress.moved("tend", 60)
    started = watchdog(address, progress)
    assert [manager.heard() for _ in range(8)] == ["WATCHDOG=1"] * 8
    go_on.set()
    moving.join()
    wait_until(lambda: progress.stuck() == ("serve",))
    wait_until(lambda: bool(lines.getvalue()))
    assert manager.quiet(0.3)
    started.close()
    assert [(line["event"], line["what"]) for line in lines.read_all()] == [("stuck", "serve")]


def test_it_notifies_again_once_the_loop_makes_progress(address: str, manager: Manager) -> None:
    progress = Progress()
    progress.moved("serve", -1)
    started = watchdog(address, progress)
    assert manager.quiet(0.3)
    manager.socket.settimeout(WAIT_SECONDS)
    progress.moved("serve", 60)
    assert manager.heard() == "WATCHDOG=1"
    started.close()


def test_only_a_loop_itself_reports_its_progress() -> None:
    now = [100.0]
    progress = Progress(lambda: now[0])
    assert progress.stuck() == ()
    progress.moved("serve", 5)
    progress.moved("tend", 50)
    now[0] = 105.0
    assert progress.stuck() == ()
    now[0] = 105.1
    assert progress.stuck() == ("serve",)
    now[0] = 200.0
    assert progress.stuck() == ("serve", "tend")
    progress.moved("serve", 1)
    progress.ended("tend")
    assert progress.stuck() == ()
