"""The results of the doctor's checks; each fault names a fix."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from client.commands import installation
from client.commands.check_result import CheckResult, CheckState
from client.commands.doctor import Doctor
from client.documents.store import DocumentStore
from client.home import NodeHome
from client.state.tables import MIGRATIONS
from governance.documents.permit import NodeKeys
from governance.runtime.database import open_database
from governance.runtime.health import HealthFinding as Health
from governance.runtime.health import HealthReport, HealthServer
from governance.runtime.local_rpc import LocalRpcServer
from keys.certificates import TransportAuthority
from keys.errors import KeyFault
from keys.identity import VerifyKey
from protocols.wire.channel import LinkFault
from protocols.wire.exchange_clock import ExchangeClock
from protocols.wire.proxy import Route
from tests.support.documents import BOTH, FederationDocuments, agreement, node_keys
from tests.support.joining_node import (
    NOW,
    Newcomer,
    ScriptedExchange,
    create_joining_node,
    invitation,
    keyring,
)
from tests.support.keystore import PASSPHRASE

CHECKS = [
    "installation",
    "settings",
    "disk",
    "machine",
    "keys",
    "state",
    "certificate",
    "link",
    "clock",
    "data",
    "opt-outs",
    "officer",
    "agreement",
    "daemon",
    "observe",
]
HOUR = timedelta(hours=1)


def timestamp(signed: datetime, life: timedelta = timedelta(hours=24)) -> bytes:
    """Return timestamp metadata as the exchange publishes them, without signatures."""
    times = {name: f"{time:%Y-%m-%dT%H:%M:%SZ}" for name, time in (
        ("x-pratique-signed-at", signed), ("expires", signed + life)
    )}  # fmt: skip
    return json.dumps({"signed": times}).encode()


@dataclass
class Exchange:
    """An exchange that publishes one timestamp, or does not answer."""

    shown: bytes | None = field(default_factory=lambda: timestamp(NOW))
    fault: LinkFault | None = None
    closed: int = 0
    route: Route = field(default_factory=Route)
    clock: ExchangeClock = field(default_factory=lambda: ExchangeClock(lambda: NOW))

    def dial(self, address: str, *, authority: bytes, key: bytes, certificate: bytes) -> "Exchange":
        return self

    def fetch(self, path: str, seconds: float = 10) -> bytes | None:
        if self.fault:
            raise self.fault
        return self.shown

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def enrolled(tmp_path: Path) -> NodeHome:
    """A node that was admitted and whose officer has signed its keys."""
    home = create_joining_node(tmp_path)
    authority = TransportAuthority.create("nordic-heart", NOW)
    Newcomer(home, ScriptedExchange(authority)).enrol(invitation(authority))
    documents = FederationDocuments(tmp_path / "documents")
    documents.folders["DK"].set_node(_own_keys(home))
    (home.officer / "country-DK.json").write_bytes(
        documents.folders["DK"].sign(NOW, documents.officers["DK"])
    )
    return home


def test_records_without_a_patient_need_attention(enrolled: NodeHome) -> None:
    data = enrolled.settings().data
    data.write_text(data.read_text().splitlines()[0] + "\n")
    result = look(enrolled)["data"]
    assert (result.state, result.says) == (
        CheckState.SOON,
        "the file has a header and no patient",
    )
    assert result.fix == "export the records again"


def _own_keys(home: NodeHome) -> NodeKeys:
    return NodeKeys.from_canonical(home.node_keys.read_bytes())


def look(
    home: NodeHome,
    *,
    exchange: Exchange | None = None,
    now: datetime = NOW,
    passphrase: Callable[[], bytes] = lambda: PASSPHRASE,
) -> dict[str, CheckResult]:
    used = exchange or Exchange()
    doctor = Doctor(home, passphrase=passphrase, dial=used.dial, clock=lambda: now)
    return {finding.name: finding for finding in doctor.results()}


def failed(findings: dict[str, CheckResult], name: str) -> CheckResult:
    """Expect this check, and no other, to fail, with a fix."""
    assert [n for n, f in findings.items() if f.state is CheckState.FAILED] == [name]
    assert findings[name].fix
    return findings[name]


def test_a_sound_node_has_no_failures(enrolled: NodeHome) -> None:
    findings = look(enrolled)
    assert list(findings) == CHECKS
    states = {name: finding.state for name, finding in findings.items()}
    expected = {"agreement": CheckState.SKIPPED, "daemon": CheckState.SOON}
    assert states == dict.fromkeys(CHECKS, CheckState.GOOD) | expected
    assert findings["daemon"].fix == "run `pratique-node up`"


def test_state_that_is_not_the_newest_is_reported(enrolled: NodeHome) -> None:
    enrolled.log_head.unlink()
    assert "pratique-node restored" in failed(look(enrolled), "state").fix


def test_the_doctor_says_what_a_new_node_needs_next(tmp_path: Path) -> None:
    findings = look(create_joining_node(tmp_path))
    assert findings["settings"].state is CheckState.SOON
    assert "pratique-node enrol" in findings["settings"].fix
    for name in ("certificate", "link", "clock"):
        assert findings[name].state is CheckState.SKIPPED
    assert "pratique-officer sign" in failed(findings, "officer").fix


@pytest.mark.parametrize("folder", [".", "none"])
def test_a_missing_node_is_reported_once_and_no_passphrase_is_asked_for(
    tmp_path: Path, folder: str
) -> None:
    prompts: list[str] = []

    def passphrase() -> bytes:
        prompts.append("")
        return b""

    findings = look(NodeHome(tmp_path / folder), passphrase=passphrase)
    assert "pratique-node init" in failed(findings, "settings").fix
    assert {findings[name].says for name in CHECKS[2:]} == {"not checked: there is no node yet"}
    assert not prompts


def test_a_library_of_another_version_is_named(
    enrolled: NodeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(installation.WANTED, "flwr", "9.99.")
    assert "of flwr is installed" in failed(look(enrolled), "installation").says


@pytest.mark.parametrize(
    ("free", "state"),
    [(10 * 2**20, CheckState.FAILED), (2**30, CheckState.SOON), (2**40, CheckState.GOOD)],
)
def test_a_disk_that_fills_up_is_reported(
    enrolled: NodeHome, monkeypatch: pytest.MonkeyPatch, free: int, state: CheckState
) -> None:
    usage = type("Usage", (), {"free": free})()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    finding = look(enrolled)["disk"]
    assert finding.state is state
    assert bool(finding.fix) is (state is not CheckState.GOOD)


def test_a_wrong_passphrase_is_reported_and_checks_that_need_keys_are_skipped(
    enrolled: NodeHome,
) -> None:
    findings = look(enrolled, passphrase=lambda: b"wrong")
    assert "passphrase" in failed(findings, "keys").says
    assert findings["link"].state is CheckState.SKIPPED
    assert findings["data"].state is CheckState.GOOD


def test_a_passphrase_that_cannot_be_read_is_reported(enrolled: NodeHome) -> None:
    def nobody() -> bytes:
        raise KeyFault("The passphrase cannot be used", why="Nobody is there", fix="name a file")

    assert failed(look(enrolled, passphrase=nobody), "keys").fix == "name a file"


def test_keys_that_others_may_read_are_reported(enrolled: NodeHome) -> None:
    (enrolled.keys / "identity.sealed").chmod(0o644)
    finding = look(enrolled)["keys"]
    assert finding.state is CheckState.FAILED
    assert finding.fix.startswith("chmod")


def test_the_public_keys_of_another_node_are_reported(enrolled: NodeHome) -> None:
    enrolled.node_keys.write_bytes(node_keys("DK").canonical())
    findings = look(enrolled)
    assert findings["keys"].state is CheckState.FAILED
    assert "another node's" in findings["keys"].says


@pytest.mark.parametrize(
    ("days", "state"),
    [
        (0, CheckState.GOOD),
        (75, CheckState.GOOD),
        (80, CheckState.SOON),
        (91, CheckState.FAILED),
    ],
)
def test_an_expiring_certificate_is_reported_in_time(
    enrolled: NodeHome, days: int, state: CheckState
) -> None:
    finding = look(enrolled, now=NOW + timedelta(days=days))["certificate"]
    assert finding.state is state
    assert bool(finding.fix) is (state is not CheckState.GOOD)


def test_a_missing_certificate_is_reported(enrolled: NodeHome) -> None:
    enrolled.certificate.unlink()
    assert look(enrolled)["certificate"].state is CheckState.FAILED


def test_a_link_that_is_down_is_reported(enrolled: NodeHome) -> None:
    fault = LinkFault("The exchange does not answer", why="refused", fix="check the network")
    used = Exchange(fault=fault)
    result = failed(look(enrolled, exchange=used), "link")
    assert result.says == "The exchange does not answer; refused"
    assert used.closed == 1


def test_a_clock_that_is_behind_is_reported(enrolled: NodeHome) -> None:
    used = Exchange(shown=timestamp(NOW + 2 * HOUR))
    result = failed(look(enrolled, exchange=used), "clock")
    assert "behind by about 2 hours" in result.says
    assert "clock" in result.fix


def test_a_clock_that_is_ahead_or_a_stopped_coordinator_is_reported(enrolled: NodeHome) -> None:
    result = look(enrolled, now=NOW + timedelta(hours=30))["clock"]
    assert result.state is CheckState.FAILED
    assert "coordinator" in result.fix


@pytest.mark.parametrize("shown", [None, b"", b"[]", b"{}", b'{"signed": 3}'])
def test_a_malformed_timestamp_breaks_nothing(enrolled: NodeHome, shown: bytes | None) -> None:
    assert look(enrolled, exchange=Exchange(shown=shown))["clock"].state is CheckState.SKIPPED


def test_records_that_cannot_be_read_are_reported_with_the_place(enrolled: NodeHome) -> None:
    data = enrolled.settings().data
    data.write_text("id,age,sex,disease\np1,abc,F,1\n")
    assert "line 2" in failed(look(enrolled), "data").says
    data.unlink()
    assert failed(look(enrolled), "data").fix


def test_a_malformed_dictionary_is_reported(enrolled: NodeHome) -> None:
    enrolled.settings().dictionary.write_text("features: [")
    assert "dictionary" in failed(look(enrolled), "data").says


def test_expiring_documents_of_the_officer_are_reported(enrolled: NodeHome) -> None:
    soon = look(enrolled, now=NOW + timedelta(days=6, hours=12))["officer"]
    assert soon.state is CheckState.SOON
    assert "renew" in soon.fix
    assert look(enrolled, now=NOW + timedelta(days=8))["officer"].state is CheckState.FAILED


def test_a_signature_of_the_officer_on_other_keys_is_reported(
    enrolled: NodeHome, tmp_path: Path
) -> None:
    documents = FederationDocuments(tmp_path / "others")
    documents.folders["DK"].set_node(node_keys("DK"))
    bundle = documents.folders["DK"].sign(NOW, documents.officers["DK"])
    (enrolled.officer / "country-DK.json").write_bytes(bundle)
    result = failed(look(enrolled), "officer")
    assert "not signed this node's keys" in result.says
    assert str(enrolled.node_keys) in result.fix


@pytest.mark.parametrize(("days", "state"), [(300, CheckState.GOOD), (330, CheckState.SOON)])
def test_the_end_of_the_countries_signatures_is_reported_in_time(
    enrolled: NodeHome, tmp_path: Path, days: int, state: CheckState
) -> None:
    documents = FederationDocuments(tmp_path / "federation").publish_agreement()
    documents.now += timedelta(days=days)
    documents.refresh()
    enrolled.root.write_bytes(documents.pinned)
    settings = enrolled.settings()
    store = DocumentStore(
        open_database(enrolled.database, MIGRATIONS),
        country="DK",
        officer_key=VerifyKey.from_text(settings.officer_key),
        pinned_root=documents.pinned,
    )
    store.sync(documents.store.read, documents.now)
    result = look(enrolled, now=documents.now)["agreement"]
    assert result.state is state
    assert "the countries' signatures are valid until 2027-09-01" in result.says


def test_a_key_that_cannot_sign_as_the_agreement_requires_is_reported(
    enrolled: NodeHome, tmp_path: Path
) -> None:
    documents = FederationDocuments(
        tmp_path / "federation", agreed=agreement(**BOTH)
    ).publish_agreement()
    documents.folders["DK"].set_node(node_keys("DK"))
    documents.sign_and_submit("DK")
    enrolled.root.write_bytes(documents.pinned)
    store = DocumentStore(
        open_database(enrolled.database, MIGRATIONS),
        country="DK",
        officer_key=documents.officers["DK"].public,
        pinned_root=documents.pinned,
    )
    store.sync(documents.store.read, documents.now)
    result = look(enrolled, now=documents.now)["agreement"]
    assert result.state is CheckState.FAILED
    assert "Ed25519 only" in result.says
    assert "rotate-keys" in result.fix


def test_the_doctor_shows_what_a_running_daemon_waits_for(enrolled: NodeHome) -> None:
    status = {"waiting_for": "idle, connected", "connected": True}
    assert daemon_check(enrolled, status).says == "idle, connected"
    gone = status | {"waiting_for": "waiting for the coordinator: revoked", "connected": False}
    result = daemon_check(enrolled, gone)
    assert (result.state, "revoked" in result.says) == (CheckState.FAILED, True)
    assert "restart it after `enrol`" in result.fix


def daemon_check(home: NodeHome, status: Mapping[str, Any]) -> CheckResult:
    rpc_server = LocalRpcServer(home.socket, lambda *_: status)
    try:
        return look(home)["daemon"]
    finally:
        rpc_server.close()


def test_the_doctor_changes_nothing(enrolled: NodeHome) -> None:
    def state() -> dict[Path, bytes]:
        files = (file for file in enrolled.path.rglob("*") if file.is_file())
        return {file: file.read_bytes() for file in files if "state.db" not in file.name}

    before = state()
    look(enrolled)
    assert state() == before
    assert keyring(enrolled).identity


def test_the_doctor_names_the_address_of_metrics_and_health(enrolled: NodeHome) -> None:
    assert "observe: 127.0.0.1:9464" in look(enrolled)["observe"].says
    report = HealthReport(CollectorRegistry(), dict, lambda: checks)
    checks = {"link": Health(good=True, says="connected")}
    server = HealthServer("127.0.0.1:0", report)
    observed(enrolled, server.port)
    assert look(enrolled)["observe"].state is CheckState.SKIPPED
    status = {"waiting_for": "idle, connected", "connected": True}
    rpc_server = LocalRpcServer(enrolled.socket, lambda *_: status)
    try:
        good = look(enrolled)["observe"]
        assert (good.state, f":{server.port}/metrics" in good.says) == (CheckState.GOOD, True)
        checks["link"] = Health(good=False, says="down")
        red = look(enrolled)["observe"]
        assert (red.state, "link: down" in red.says) == (CheckState.SOON, True)
        server.close()
        assert "start the daemon again" in failed(look(enrolled), "observe").fix
    finally:
        rpc_server.close()


def observed(home: NodeHome, port: int) -> None:
    """Switch metrics and health on in a node's settings."""
    with home.settings_file.open("a") as settings:
        settings.write(f"observe: 127.0.0.1:{port}\n")
