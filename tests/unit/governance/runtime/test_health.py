"""The health endpoint: this machine only, one host, GET only, few callers, nothing quoted."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry, Counter
from pydantic import BaseModel, ValidationError

from governance.runtime import health
from governance.runtime.health import (
    HealthFinding,
    HealthReport,
    HealthServer,
    ObserveFault,
    failing_checks,
    observed,
)
from governance.runtime.loopback import LoopbackAddress, host_and_port
from tests.support.waiting import wait_until

GOOD, BAD = HealthFinding(good=True, says="moving"), HealthFinding(good=False, says="stuck")


@dataclass
class Answer:
    """A parsed response."""

    status: int
    headers: dict[str, str]
    body: str


@dataclass
class Endpoint:
    """An endpoint that shows what a test sets."""

    checks: dict[str, HealthFinding] = field(default_factory=lambda: {"serve": GOOD})
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        Counter("pratique_test", "One for the test.", registry=self.registry)
        report = HealthReport(
            self.registry, lambda: self.checks, lambda: {**self.checks, "link": GOOD}
        )
        self.server = HealthServer("127.0.0.1:0", report)
        self.port = self.server.port

    def raw(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(request)
            received = b""
            while part := connection.recv(65536):
                received += part
            return received

    def get(self, path: str, *hosts: str, method: str = "GET", more: str = "") -> Answer:
        named = hosts or (f"127.0.0.1:{self.port}",)
        lines = [f"{method} {path} HTTP/1.1", *(f"Host: {host}" for host in named)]
        response = self.raw(("\r\n".join(lines) + f"\r\n{more}\r\n").encode())
        head, _, body = response.decode().partition("\r\n\r\n")
        first, *rest = head.split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in rest)
        return Answer(int(first.split()[1]), headers, body)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.server.close()


def test_metrics_are_prometheus_text(endpoint: Endpoint) -> None:
    answer = endpoint.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "# HELP pratique_test_total One for the test." in answer.body
    assert "# TYPE pratique_test_total counter" in answer.body


def test_metrics_are_openmetrics_on_request(endpoint: Endpoint) -> None:
    answer = endpoint.get("/metrics", more="Accept: application/openmetrics-text\r\n")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.body.endswith("# EOF\n")


def test_health_is_named_checks_in_plain_sentences(endpoint: Endpoint) -> None:
    live, ready = endpoint.get("/health/live"), endpoint.get("/health/ready")
    assert (live.status, ready.status) == (200, 200)
    assert json.loads(live.body) == {
        "good": True,
        "checks": {"serve": {"good": True, "says": "moving"}},
    }
    assert set(json.loads(ready.body)["checks"]) == {"serve", "link"}


def test_one_bad_check_is_enough(endpoint: Endpoint) -> None:
    endpoint.checks = {"serve": GOOD, "tend": BAD}
    answer = endpoint.get("/health/live")
    assert answer.status == 503
    assert json.loads(answer.body)["good"] is False
    assert endpoint.get("/health/ready").status == 503


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_requests_to_this_machine_s_names_are_answered(endpoint: Endpoint, host: str) -> None:
    assert endpoint.get("/health/live", f"{host}:{endpoint.port}").status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:PORT", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:PORT",
     "127.0.0.1:PORT.evil.example", "", "127.0.0.1:PORT, evil.example", "0.0.0.0:PORT"],
)  # fmt: skip
def test_another_host_name_is_refused_against_dns_rebinding(endpoint: Endpoint, host: str) -> None:
    answer = endpoint.get("/metrics", host.replace("PORT", str(endpoint.port)))
    assert answer.status == 421
    assert "pratique_test" not in answer.body


def test_two_hosts_or_none_are_refused(endpoint: Endpoint) -> None:
    own_host = f"127.0.0.1:{endpoint.port}"
    assert endpoint.get("/metrics", own_host, "evil.example").status == 421
    assert endpoint.get("/metrics", own_host, own_host).status == 421
    assert b" 421 " in endpoint.raw(b"GET /metrics HTTP/1.0\r\n\r\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "X"])
def test_only_get_is_answered(endpoint: Endpoint, method: str) -> None:
    answer = endpoint.get("/metrics", method=method)
    assert answer.status == 405
    assert "pratique_test" not in answer.body


@pytest.mark.parametrize("path", ["/", "/metrics/", "/health", "/../metrics", "/debug"])
def test_there_are_three_paths(endpoint: Endpoint, path: str) -> None:
    assert endpoint.get(path).status == 404


@pytest.mark.parametrize(
    "request_bytes",
    [b"\0\0\0\0\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n",
     b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n", b"GET /CANARY HTTP/1.1 x\r\n\r\n",
     b"CANARY / HTTP/1.1\r\n\r\n"],
)  # fmt: skip
def test_a_malformed_request_is_refused_and_not_quoted(
    endpoint: Endpoint, request_bytes: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    response = endpoint.raw(request_bytes)
    assert b"CANARY" not in response
    assert b"Traceback" not in response
    assert endpoint.get("/health/live").status == 200
    assert capfd.readouterr() == ("", "")


def test_answers_name_no_software_and_allow_no_other_origin(endpoint: Endpoint) -> None:
    for answer in (endpoint.get("/metrics"), endpoint.get("/nothing")):
        assert set(answer.headers) == {
            "content-type",
            "content-length",
            "cache-control",
            "x-content-type-options",
        }


def test_it_listens_at_the_loopback_address_only(endpoint: Endpoint) -> None:
    assert endpoint.server._server.server_address[0] == "127.0.0.1"


def test_a_port_in_use_gives_a_clear_error(endpoint: Endpoint) -> None:
    with pytest.raises(ObserveFault, match=f"127.0.0.1:{endpoint.port}") as caught:
        HealthServer(f"127.0.0.1:{endpoint.port}", HealthReport(CollectorRegistry(), dict, dict))
    assert "observe" in caught.value.fix


def test_few_callers_are_served_at_a_time_and_then_the_next(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = [
        socket.create_connection(("127.0.0.1", endpoint.port)) for _ in range(health.MAX_CALLERS)
    ]
    free = endpoint.server._server._free
    wait_until(lambda: free._value == 0)
    with pytest.raises((ConnectionError, IndexError)):
        endpoint.get("/health/live")
    for connection in connections:
        connection.close()
    wait_until(lambda: free._value == health.MAX_CALLERS)
    assert endpoint.get("/health/live").status == 200


def test_a_slow_caller_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LONGEST_SECONDS", 0.2)
    endpoint = Endpoint()
    try:
        with socket.create_connection(("127.0.0.1", endpoint.port), timeout=10) as drip:
            begun = time.monotonic()
            with pytest.raises(ConnectionError):
                drip_until(drip, begun + 10)
    finally:
        endpoint.server.close()


def drip_until(connection: socket.socket, deadline: float) -> None:
    while time.monotonic() < deadline:
        connection.sendall(b"G")
        time.sleep(0.02)


def test_observed_serves_the_endpoint_only_with_an_address() -> None:
    report = HealthReport(CollectorRegistry(), dict, dict)
    with observed(None, report):
        pass
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with observed(f"127.0.0.1:{port}", report):
        socket.create_connection(("127.0.0.1", port)).close()
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", port))


class Setting(BaseModel):
    observe: LoopbackAddress


@pytest.mark.parametrize("address", ["127.0.0.1:9464", "127.1.2.3:1", "[::1]:65535"])
def test_loopback_addresses_are_settings(address: str) -> None:
    assert Setting(observe=address).observe == address
    assert host_and_port(address)[1] > 0


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:9464", "[::]:9464", "192.168.1.1:9464", "localhost:9464", "exchange.example:9464",
     "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.999:1", "127.0.0.1:9464\n", ":9464",
     "[::ffff:127.0.0.1]:9464", "127.0.0.1:9464 ", "[::1%eth0]:9464", "2130706433:9464"],
)  # fmt: skip
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValidationError):
        Setting(observe=address)


@pytest.mark.parametrize("body", [b"no json", b"[]", b"{}", b'{"checks": 1}', b"[" * 50_000])
def test_another_program_behind_the_address_is_a_plain_fault(body: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        program = threading.Thread(target=answer_once, args=(other, body))
        program.start()
        with pytest.raises(ObserveFault, match="do not answer"):
            failing_checks(f"127.0.0.1:{other.getsockname()[1]}")
        program.join()


def answer_once(listening: socket.socket, body: bytes) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body)
