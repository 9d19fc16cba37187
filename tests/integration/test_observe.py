"""Metrics, health and log files of daemon processes; refused calls are counted at the exchange."""

import json
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from keys.certificates import Role, TransportAuthority
from protocols.proto.exchange_pb2 import SubmitRequest
from protocols.wire.channel import LinkFault
from server.exchange.interceptors import RefusalCounter
from server.exchange.relay import Relay
from server.exchange.serving import serve_exchange
from tests.integration.test_node_daemon import Site
from tests.support import exchange_server
from tests.support.exchange_server import (
    LOOPBACK,
    OpenExchange,
    ScriptedSuperLink,
    ServedFiles,
    caller,
    now,
)
from tests.support.waiting import WAIT_SECONDS, wait_until

LISTENING = "0A"
"""The state of a listening socket in /proc/net/tcp."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def listeners(port: int) -> set[str]:
    """Return the addresses, as the kernel writes them, that listen on the port."""
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    local = [row[1].rsplit(":", 1) for row in rows if row[3] == LISTENING]
    return {address for address, state in local if int(state, 16) == port}


class Observed(Site):
    """A node that shows metrics and health, and logs to a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.observe, self.log_file = free_port(), folder / "log" / "node.log"
        self.log_file.parent.mkdir()
        with self.home.settings_file.open("a") as settings:
            settings.write(f"observe: 127.0.0.1:{self.observe}\n")

    def up(self) -> subprocess.Popen[bytes]:
        arguments = self.command("up", "--log-file", str(self.log_file))
        process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self.folder
        )
        self.processes.append(process)
        return process

    def get(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.observe}{path}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except urllib.error.URLError:
            return 0, ""

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_file.read_text().splitlines()]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Observed]:
    opened = Observed(tmp_path)
    yield opened
    opened.close()
    for process in opened.processes:
        assert process.stdout is not None
        process.stdout.close()


def test_a_node_shows_metrics_on_loopback_and_is_unhealthy_without_the_link(site: Observed) -> None:
    process = site.up()
    assert process.stdout is not None
    assert process.stdout.readline().decode().startswith("starting the node of DK")
    wait_until(lambda: site.get("/health/ready")[0] == 200)
    assert listeners(site.observe) == {"0100007F"}
    assert "pratique_node_link_up 1.0" in site.get("/metrics")[1]
    site.exchange.close()
    wait_until(lambda: site.get("/health/ready")[0] == 503)
    checks = json.loads(site.get("/health/ready")[1])["checks"]
    assert {name for name, check in checks.items() if not check["good"]} == {"link"}
    assert site.get("/health/live")[0] == 200
    process.send_signal(signal.SIGHUP)
    site.log_file.rename(site.log_file.with_suffix(".old"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_SECONDS) == 0
    assert process.stdout.read() == b""
    site.exchange = site.open()


def test_logs_go_to_a_private_file_that_is_reopened_on_sighup(site: Observed) -> None:
    process = site.up()
    wait_until(lambda: site.get("/health/ready")[0] == 200)
    assert "connected" in [line["event"] for line in site.lines()]
    assert site.log_file.stat().st_mode & 0o777 == 0o600
    site.log_file.rename(site.log_file.with_suffix(".old"))
    process.send_signal(signal.SIGHUP)
    site.exchange.close()
    wait_until(site.log_file.exists)
    wait_until(lambda: "link lost" in [line["event"] for line in site.lines()])
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_SECONDS) == 0
    site.exchange = site.open()


def test_a_port_in_use_gives_a_clear_error_at_the_start(site: Observed) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", site.observe))
        other.listen()
        process = site.up()
        assert process.wait(WAIT_SECONDS) == 1
    assert process.stdout is not None
    assert f"cannot be shown at 127.0.0.1:{site.observe}" in process.stdout.read().decode()


def test_refused_calls_are_counted_by_call_and_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: Counter[tuple[str, str]] = Counter()
    inner = serve_exchange

    def counting(*arguments: Any, **options: Any) -> Any:
        count = RefusalCounter(lambda call, reason: counted.update([(call, reason)]))
        return inner(*arguments, **options, interceptors=[count])

    monkeypatch.setattr(exchange_server, "serve_exchange", counting)
    authority = TransportAuthority.create("danube", now())
    documents = ServedFiles({"metadata/1.root.json": b"root"})
    relay = Relay(ScriptedSuperLink().forward)
    with OpenExchange(authority, relay, enrolments=None, documents=documents) as exchange:
        node = exchange.link(caller(authority, "AT", Role.NODE))
        assert node.fetch("metadata/1.root.json") == b"root"
        with pytest.raises(LinkFault):
            node.submit(SubmitRequest.COUNTRY_BUNDLE, b"x")
        enrolling = exchange.link(caller(authority, "AT", Role.ENROLMENT))
        for _ in range(2):
            with pytest.raises(LinkFault):
                enrolling.fetch("metadata/1.root.json")
        wait_until(lambda: counted.total() == 3)  # a refusal is counted after it is sent
        node.close()
        enrolling.close()
    denied = grpc.StatusCode.PERMISSION_DENIED.name
    assert counted == {("Submit", denied): 1, ("Fetch", denied): 2}
