"""Logs that others could fill: run ids without end under one permit, the same bundle again.

What changes nothing has no entry, and what changes something is limited. And a log that has a
million entries all the same is listed and verified page by page, in little memory.
"""

import itertools
import resource
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from client.border.run_limit import AT_ONCE, CLAUSE, pause_before_next
from client.state.decision_log import log_origin
from client.state.state_check import StateCheck, open_log
from client.state.tables import MIGRATIONS
from governance.audit.events import Event, EventKind, entry_bytes
from governance.audit.exported import export_head, export_page
from governance.audit.log import AuditLog
from governance.audit.merkle import completed_by, leaf_hash
from governance.documents.study import Study
from governance.officer import logs
from governance.officer.terminal import Terminal
from governance.runtime.database import open_database
from governance.runtime.local_rpc import LocalRpcServer
from keys.certificates import Peer, Role
from protocols.errors import ReasonCode
from protocols.proto.exchange_pb2 import SubmitRequest
from server.exchange.documents import ExchangeDocuments
from tests.support.documents import NOW, raw_key
from tests.support.flood import goes_on, latency
from tests.support.joining_node import create_joining_node, keyring
from tests.support.node_federation import NodeFederation, code_of, last_refusal, log_lines

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodeFederation, Study]]:
    federation = NodeFederation(tmp_path_factory.mktemp("floods") / "federation")
    study = federation.approved()
    yield federation, study
    federation.close()


@pytest.fixture
def flooded(
    template: tuple[NodeFederation, Study], tmp_path: Path
) -> Iterator[tuple[NodeFederation, Study]]:
    federation = template[0].copied(tmp_path / "federation")
    yield federation, template[1]
    federation.close()


def enter(federation: NodeFederation, study: Study) -> ReasonCode | None:
    """Ask one node to enter another run; return the code of its refusal."""
    node = federation.nodes["DK"]
    return code_of(node.handle(federation.run(study).request("bundle", "DK")))


def test_a_coordinator_that_enters_runs_without_end_is_refused_after_the_first_few(
    flooded: tuple[NodeFederation, Study],
) -> None:
    federation, study = flooded
    node = federation.nodes["DK"]
    codes = Counter(enter(federation, study) for _ in range(40))
    assert codes == {None: AT_ONCE, ReasonCode.NO_PERMIT: 40 - AT_ONCE}
    assert last_refusal(node)["clause"] == CLAUSE
    assert len(node.parts.runs.summaries(live=True)) == 1, "a newer run ends the one before"
    kinds = Counter(kind_of(line) for line in log_lines(node))
    assert kinds["run-joined"] == AT_ONCE
    assert kinds["run-ended"] == AT_ONCE - 1
    assert kinds["budget-charged"] == kinds["cohort-counted"] == 1
    assert kinds["request-refused"] + kinds["requests-counted"] <= 11, "others are counted"


def test_an_officer_reads_the_log_and_another_study_runs_beside_the_flood(
    flooded: tuple[NodeFederation, Study],
) -> None:
    federation, study = flooded
    log = federation.nodes["DK"].parts.log

    def read() -> None:
        export_head(log)
        export_page(log, 0, log.size())

    other = federation.ready(federation.approved(id="beside"))
    quiet = latency(read, 30)
    with asking_without_end(federation, study):
        assert goes_on(read, 30, quiet, pause=0.02)
        other.sum(1, "histogram")


@contextmanager
def asking_without_end(federation: NodeFederation, study: Study) -> Iterator[None]:
    """Ask the node for another run, again and again, while the block runs."""
    node, ended = federation.nodes["DK"], threading.Event()
    frames = [federation.run(study).request("bundle", "DK") for _ in range(AT_ONCE + 100)]

    def ask() -> None:
        for frame in itertools.cycle(frames):
            if ended.is_set():
                return
            node.handle(frame)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield
        finally:
            ended.set()
            asking.result()


def test_a_run_that_does_begin_is_not_in_the_way_of_the_limit(
    flooded: tuple[NodeFederation, Study],
) -> None:
    federation, study = flooded
    for _ in range(AT_ONCE - 1):
        assert enter(federation, study) is None
    federation.ready(study).sum(1, "histogram")
    assert enter(federation, study) is ReasonCode.NO_PERMIT
    assert last_refusal(federation.nodes["DK"])["clause"] == "node/permit-used"


def test_the_next_run_can_be_entered_after_a_pause_or_a_new_approval(
    flooded: tuple[NodeFederation, Study],
) -> None:
    federation, study = flooded
    for _ in range(AT_ONCE):
        enter(federation, study)
    federation.documents.now += timedelta(seconds=59)
    assert enter(federation, study) is ReasonCode.NO_PERMIT
    federation.documents.now += timedelta(seconds=1)
    assert [enter(federation, study) for _ in range(2)] == [None, ReasonCode.NO_PERMIT]
    federation.restart("DK")
    assert enter(federation, study) is ReasonCode.NO_PERMIT, "a restart does not end the pause"
    federation.documents.now += timedelta(seconds=1)
    federation.permit("DK", study)
    assert enter(federation, study) is None


def test_entries_of_runs_that_never_begin_are_few_in_the_long_run() -> None:
    """Even after years, one permit allows one entered run a day."""
    entered, passed = 0, timedelta()
    while passed < 365 * DAY:
        passed += pause_before_next(entered)
        entered += 1
    assert entered < AT_ONCE + 11 + 365 + 1
    assert pause_before_next(10**9) == DAY


def kind_of(line: str) -> str:
    return line.split('"kind":"')[1].split('"', maxsplit=1)[0]


def test_the_same_bundle_again_writes_no_entry(template: tuple[NodeFederation, Study]) -> None:
    federation, _ = template
    said: list[str] = []
    documents = ExchangeDocuments(
        federation.documents.store,
        document_key=raw_key(2),
        online_key=raw_key(3),
        clock=federation.clock,
        on_change=said.append,
    )
    federation.documents.now += timedelta(minutes=1)
    bundle = federation.documents.folders["DK"].sign(
        federation.documents.now, federation.documents.officers["DK"]
    )
    peer = Peer(
        country="DK",
        role=Role.OFFICER,
        federation=federation.documents.agreed.federation,
        serial=1,
        not_after=NOW + DAY,
    )
    for _ in range(20):
        documents.submit(peer, SubmitRequest.COUNTRY_BUNDLE, bundle)
    assert len(said) == 1


MILLION = 10**6


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_million_entries_are_checked_listed_and_verified_in_little_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = create_joining_node(tmp_path)
    origin, key = log_origin("DK"), keyring(home).log_key
    with closing(sqlite3.connect(home.database)) as raw, raw:
        fill(raw, origin, MILLION)
    engine = open_database(home.database, MIGRATIONS)
    log = open_log(engine, origin, key, former=True)
    check = StateCheck(engine, log, "DK")
    check.take_over()
    before, begun = resident(), process_time()
    check.require_intact()
    checked = process_time() - begun
    server = LocalRpcServer(home.socket, lambda method, params: answer(log, method, params))
    source = logs.Source(home.path, coordinator=False)
    monkeypatch.setattr(logs, "_node_key", lambda *_: log.verifier)
    officer: Any = type("Home", (), {"seen": tmp_path / "seen"})()
    try:
        logs.list_log(source, Terminal(), last=3)
        begun = process_time()
        logs.verify_log(officer, source, Terminal(), NOW)
        verified = process_time() - begun
        logs.list_log(source, Terminal(quiet=True), last=None)
    finally:
        server.close()
        engine.dispose()
    said = capsys.readouterr().out
    assert f"3 of {MILLION + 1} entries" in said
    assert "is whole" in said
    assert checked < 60
    assert verified < 120
    assert resident() - before < 150


def answer(log: AuditLog, method: str, params: Any) -> Any:
    answers: dict[str, Any] = {
        "check_state": lambda: None,
        "log_head": lambda: export_head(log),
        "log_entries": lambda start, end: export_page(log, start, end),
    }
    return answers[method](**params)


def fill(raw: sqlite3.Connection, origin: str, size: int) -> None:
    """Replace a log by one of this size, without a signed head, as fast as SQLite can."""
    for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        keep = raw.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()
        raw.execute("CREATE TEMP TABLE IF NOT EXISTS kept (sql)")
        raw.execute("INSERT INTO kept VALUES (?)", keep)
        raw.execute(f"DROP TRIGGER {name}")
    for table in ("log_entries", "log_nodes", "log_heads", "signed_head"):
        raw.execute(f"DELETE FROM {table}")  # noqa: S608
    event = Event(kind=EventKind.NODE_PAUSED, at=NOW, actor="DK")
    template = entry_bytes(event, origin=origin, index=0)
    last: dict[int, bytes] = {}
    nodes: list[tuple[int, int, bytes]] = []
    entries: list[tuple[int, bytes, bytes]] = []
    for index in range(size):
        entry = template.replace(b'"index":0', b'"index":%d' % index)
        leaf = leaf_hash(entry)
        for node in list(completed_by(index, leaf, lambda level, _: last[level])):
            last[node.level] = node.hash
            nodes.append((node.level, node.index, node.hash))
        last[0] = leaf
        entries.append((index, entry, leaf))
        if len(entries) == 10_000 or index == size - 1:
            raw.executemany("INSERT INTO log_entries VALUES (?, ?, ?)", entries)
            raw.executemany("INSERT INTO log_nodes VALUES (?, ?, ?)", nodes)
            entries, nodes = [], []
    for (sql,) in raw.execute("SELECT sql FROM temp.kept").fetchall():
        raw.execute(sql)


def resident() -> float:
    """Return the most memory that this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
