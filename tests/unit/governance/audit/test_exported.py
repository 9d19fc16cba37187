"""A daemon's log is exported in pages, which verify together by the key that comes with them."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from governance.audit import exported
from governance.audit.exported import (
    entries_in,
    export_head,
    export_page,
    fetch_head,
    fetch_lines,
)
from governance.audit.log import AuditLog
from governance.audit.note import NoteKey
from governance.audit.verify import verify_export
from governance.errors import LogFault
from tests.support.ledger_and_log import audit_log, event, node_state


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    log = audit_log(node_state(tmp_path))
    for number in range(7):
        log.append(event(number))
    return log


def ask(log: AuditLog, method: str, **params: Any) -> Any:
    return export_head(log) if method == "log_head" else export_page(log, **params)


@pytest.mark.parametrize("entries", [1, 3, 7, 100])
def test_a_log_fetched_in_pages_verifies(
    log: AuditLog, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported, "PAGE_ENTRIES", entries)
    daemon = partial(ask, log)
    head = fetch_head(daemon)
    lines = fetch_lines(daemon, 0, head.size)
    key = NoteKey.from_text(head.verifier)
    assert verify_export(lines, head.checkpoint.encode(), key).size == head.size == 7


def test_a_page_is_never_much_longer_than_its_limit(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = export_page(log, 0, 7)["entries"]
    monkeypatch.setattr(exported, "PAGE_BYTES", len(whole[0]) + 1)
    assert export_page(log, 0, 7)["entries"] == whole[:2]
    assert [*fetch_lines(partial(ask, log), 0, 7)] == [line.encode() for line in whole]


def test_any_part_can_be_fetched(log: AuditLog) -> None:
    whole = [*log.export()]
    assert [*fetch_lines(partial(ask, log), 2, 5)] == whole[2:5]
    assert export_page(log, -3, 10**9)["entries"] == [line.decode() for line in whole]


@pytest.mark.parametrize("answer", [{}, {"entries": []}, {"entries": 5}, None, "x"])
def test_an_answer_that_is_no_page_is_refused_and_never_asked_for_again(answer: object) -> None:
    with pytest.raises(LogFault, match="sent no readable log"):
        list(fetch_lines(lambda *_, **__: answer, 0, 5))
    with pytest.raises(LogFault, match="sent no readable log"):
        fetch_head(lambda *_, **__: answer)


def test_the_entries_of_exported_lines_are_read(log: AuditLog) -> None:
    assert [entry["index"] for entry in entries_in(log.export())] == list(range(7))


@pytest.mark.parametrize(
    "line",
    [
        b"no json",
        b"[]",
        b"1",
        b'{"entry": {}}',
        b'{"entry": {"index": "0", "at": "", "kind": "", "actor": "", "outcome": ""}}',
        b'{"entry": {"index": 0, "at": "", "kind": [], "actor": "", "outcome": ""}}',
        b'{"entry": ' + b"[" * 100_000,
        b"\xff",
    ],
)
def test_a_line_without_an_entry_is_refused(line: bytes) -> None:
    with pytest.raises(LogFault, match="sent no readable log"):
        list(entries_in([line]))
