"""Targets: audit logs as they are exported, their checkpoints and keys."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from governance.audit.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint
from governance.audit.events import Event, EventKind, Outcome, entry_bytes, parse_entry
from governance.audit.merkle import leaf_hash
from governance.audit.note import NoteKey, parse_note, sign_note
from governance.audit.verify import verify_export
from governance.officer import terminal
from governance.officer.logs import Source, _Restorations, _warn_of_restoration, list_log
from governance.runtime.local_rpc import LocalRpcFault, _answer
from governance.runtime.text_layout import (
    broken,
)
from protocols.wire.encoding import canonical_json
from tests.fuzz.target import (
    WIDTH,
    Seeds,
    Target,
    joined,
    parts,
    require_seen,
    text,
)
from tests.support.documents import NOW, raw_key
from tests.support.reference_merkle import reference_root

RPC, VERIFY = "governance/runtime/local_rpc.py", "governance/audit/verify.py"
LOGS, NOTE, EVENTS = (
    "governance/officer/logs.py",
    "governance/audit/note.py",
    "governance/audit/events.py",
)
KEY = raw_key(6)
LOG_KEY = NoteKey("fuzz", KEY.public)


def _entries(number: int = 3) -> list[bytes]:
    events = [
        Event(
            kind=EventKind.STATE_RESTORED if index == 1 else EventKind.REQUEST_REFUSED,
            at=NOW,
            round=index or None,
            actor="coordinator",
            outcome=Outcome.REFUSED,
            reason=f"No permit, number {index}.",
        )
        for index in range(number)
    ]
    return [entry_bytes(event, origin="fuzz", index=at) for at, event in enumerate(events)]


@cache
def _log() -> tuple[bytes, tuple[bytes, ...]]:
    """Return a signed checkpoint and the exported lines that it covers."""
    entries = _entries()
    leaves = [leaf_hash(entry) for entry in entries]
    head = Checkpoint("fuzz", len(entries), reference_root(leaves))
    lines = [
        b'{"entry":%b,"leaf":"%b"}' % (entry, leaf.hex().encode())
        for entry, leaf in zip(entries, leaves, strict=True)
    ]
    return sign_checkpoint(head, KEY), tuple(lines)


def _exported(checkpoint: bytes, lines: bytes) -> None:
    """Verify an exported log: only the one that was signed verifies."""
    whole = verify_export(lines.splitlines(), checkpoint, LOG_KEY)
    assert (whole.origin, whole.size) == ("fuzz", 3)
    assert tuple(lines.splitlines()) == _log()[1]


class _ScriptedSource(Source):
    """A daemon's log whose daemon answers these bytes, to each question in turn."""

    def ask(self, method: str, **_: Any) -> Any:
        answers: list[bytes] = self.answers  # type: ignore[attr-defined]
        if not answers:
            raise LocalRpcFault("The daemon has ended")
        return _answer(answers.pop(0) + b"\n", self.folder)


def _source(*answers: bytes) -> Source:
    source = _ScriptedSource(Path("node"), coordinator=False)
    object.__setattr__(source, "answers", list(answers))
    return source


def _listed(head: bytes, page: bytes) -> None:
    """List and verify the log that a daemon sends; each line that is printed can be seen."""
    lines: list[str] = []
    shown = Terminal(lines)
    try:
        list_log(_source(head, page), shown, last=None)
    finally:
        require_seen(*lines)
    source, restorations = _source(head, page), _Restorations()
    stated = source.head()
    read = restorations.watch(source.lines(0, stated.size))
    try:
        verify_export(read, stated.checkpoint.encode(), LOG_KEY)
    finally:
        _warn_of_restoration(restorations.newest, shown)
        require_seen(*lines)


class Terminal(terminal.Terminal):
    """Collects what a command prints."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def _print(self, lines: Any, *, bold: bool = False) -> None:
        for line in lines:
            self._lines.extend(broken(line, WIDTH))

    def warn(self, text: str) -> None:
        self._print([text])


def _pages() -> Seeds:
    checkpoint, lines = _log()
    head = {"checkpoint": checkpoint.decode(), "verifier": LOG_KEY.to_text(), "size": 3}
    page = {"entries": [line.decode() for line in lines]}
    return (joined(*(json.dumps({"ok": each}).encode() for each in (head, page))),)


def _checkpoint(note: str) -> None:
    assert parse_checkpoint(note).to_text() == note


def _key(typed: str) -> None:
    assert NoteKey.from_text(typed).to_text() == typed


def _entry(data: bytes) -> None:
    assert canonical_json(parse_entry(data)) == data


def _exports() -> Seeds:
    checkpoint, lines = _log()
    return (joined(checkpoint, b"\n".join(lines)),)


LOG_TARGETS: dict[str, Target] = {
    "log of a daemon, page by page": Target(
        parts(_listed, 2), _pages, (LOGS, "governance/audit/exported.py", VERIFY)
    ),
    "exported log": Target(
        parts(_exported, 2), _exports, (VERIFY, "governance/audit/checkpoint.py", NOTE)
    ),
    "entry of a log": Target(_entry, lambda: tuple(_entries()), (EVENTS,)),
    "checkpoint": Target(
        text(_checkpoint),
        lambda: (_log()[0].partition(b"\n\n")[0] + b"\n",),
        ("governance/audit/checkpoint.py",),
    ),
    "signed note": Target(parse_note, (sign_note("fuzz\n1\nAAAA\n", "fuzz", KEY),), (NOTE,)),
    "log key": Target(text(_key), (LOG_KEY.to_text().encode(),), (NOTE,)),
}
