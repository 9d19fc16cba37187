"""List and verify the audit logs of daemons on this machine, with keys that the officer trusts.

A node's log key comes from its country's signed documents, a coordinator's from the agreement. If
the agreement names no log key, the key seen first is remembered, and a later change is reported.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from governance.audit.events import EventKind
from governance.audit.exported import LogHead, entries_in, fetch_head, fetch_lines
from governance.audit.note import NoteKey
from governance.audit.verify import VerifiedLog, verify_export
from governance.errors import LogFault
from governance.officer.errors import OfficerFault
from governance.officer.home import OfficerHome
from governance.officer.own_documents import read_own
from governance.officer.terminal import Terminal
from governance.officer.trust_store import kept_agreement
from governance.runtime.files import write_atomic
from governance.runtime.local_rpc import LocalRpcFault, ask
from governance.runtime.safe_text import named, quoted
from governance.runtime.wording import counted
from keys.identity import VerifyKey
from protocols.wire.encoding import canonical_json, digest

NODE_SOCKET = Path("run", "node.sock")
COORDINATOR_SOCKET = Path("run", "coordinator.sock")
AT_ONCE = 500
"""How many rows of the list are laid out together."""
HEADINGS: tuple[str, ...] = ("entry", "time", "event", "by", "decision", "about", "reason")
SHOWN_DIGEST = 12


@dataclass(frozen=True)
class Source:
    """A daemon's log: its folder, and which daemon it is."""

    folder: Path
    coordinator: bool

    @property
    def socket(self) -> Path:
        """The socket of the daemon's local RPC server."""
        return self.folder / (COORDINATOR_SOCKET if self.coordinator else NODE_SOCKET)

    def ask(self, method: str, **params: Any) -> Any:
        """Return the daemon's answer. Raises LocalRpcFault."""
        try:
            return ask(self.socket, method, None, **params)
        except LocalRpcFault as fault:
            if isinstance(fault.__cause__, OSError):
                raise self._silent(fault) from fault
            raise

    def head(self) -> LogHead:
        """Return the signed checkpoint of the log. Raises LocalRpcFault, LogFault."""
        return fetch_head(self.ask)

    def lines(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the exported lines start ≤ index < end, page by page."""
        return fetch_lines(self.ask, start, end)

    def _silent(self, fault: LocalRpcFault) -> LocalRpcFault:
        """Return what an officer can do if the daemon does not answer."""
        program = "coordinator" if self.coordinator else "node"
        return LocalRpcFault(
            fault.what,
            why=fault.why,
            fix=f"ask its operator to start it (`pratique-{program} up`), or name its folder with "
            f"--{program}",
        )


def source_of(home: OfficerHome, node: Path | None, coordinator: Path | None) -> Source:
    """Return the log to read; by default that of the officer's node. Raises OfficerFault."""
    if node and coordinator:
        raise OfficerFault(
            "The options --node and --coordinator exclude each other",
            why="each command reads one log",
            fix="run the command once for each",
        )
    if coordinator:
        return Source(coordinator, coordinator=True)
    known = node or home.settings().node
    if known is None:
        raise OfficerFault(
            "It is not known whose log is meant",
            why="you have not named your node yet",
            fix="add --node FOLDER or --coordinator FOLDER",
        )
    return Source(Path(known), coordinator=False)


def list_log(source: Source, terminal: Terminal, *, last: int | None) -> None:
    """List entries, oldest first; only the newest `last` ones, if that is given."""
    size = source.head().size
    first = 0 if last is None else max(0, size - last)
    entries = entries_in(source.lines(first, size))
    terminal.answer_list(_listed(entries, terminal))
    terminal.say(f"{size - first} of {_entries(size)}. `log verify` checks them all.")


def _listed(
    entries: Iterable[Mapping[str, Any]], terminal: Terminal
) -> Iterator[Mapping[str, Any]]:
    """Print entries as a table, a part at a time, and yield them."""
    headings, remaining = HEADINGS, iter(entries)
    while True:
        part = list(islice(remaining, AT_ONCE))
        if part or headings:
            terminal.table(headings, [_row(entry) for entry in part])
        if not part:
            return
        headings = ()
        yield from part


def _entries(number: int) -> str:
    return counted(number, "entry", "entries")


def _row(entry: Mapping[str, Any]) -> Sequence[str]:
    reason = entry.get("reason") or entry.get("code") or ""
    clause = f" ({named(str(entry['clause']))})" if entry.get("clause") else ""
    return (
        named(str(entry["index"])),
        named(str(entry["at"])),
        named(str(entry["kind"])),
        named(str(entry["actor"])),
        named(str(entry["outcome"])),
        _about(entry),
        f"{_said(reason)}{clause}",
    )


def _said(text: object) -> str:
    """Return the reason that an entry states; whoever writes the log may write anything in it."""
    return named(str(text)) if text else ""


def _about(entry: Mapping[str, Any]) -> str:
    """Return what an entry is about: a study by the beginning of its digest, and its round."""
    about = str(entry.get("study") or entry.get("run") or entry.get("subject") or "")
    if entry.get("study"):
        about = about.removeprefix("sha256:")[:SHOWN_DIGEST]
    named_about = named(about) if about else ""
    return f"{named_about}, round {named(str(entry['round']))}" if "round" in entry else named_about


def verify_log(
    home: OfficerHome,
    source: Source,
    terminal: Terminal,
    now: datetime,
    *,
    accept_restored: bool = False,
) -> None:
    """Verify a whole log, and that it continues what was verified before. Raises LogFault.

    The daemon first compares its own database with what it signed (its ledger, too, on a node).
    With `accept_restored`, a node's log need not continue what was verified before, if an entry
    says that the node's state was restored from a copy; each such entry is accepted once.
    """
    source.ask("check_state")
    head = source.head()
    key = _coordinator_key(home, head) if source.coordinator else _node_key(home, now)
    seen = _memory(home, key.name, "note")
    checkpoint, restorations = head.checkpoint.encode(), _Restorations()
    before, continuity = _before(seen), CONTINUES
    integrity = "none changed, none gone"
    try:
        lines = restorations.watch(source.lines(0, head.size))
        whole = verify_export(lines, checkpoint, key, seen=before)
    except LogFault as fault:
        if not before or source.coordinator:
            raise
        again = restorations.watch(source.lines(0, head.size))
        whole = verify_export(again, checkpoint, key)  # a restored log must still be whole
        _accept(home, key, restorations.newest, fault, agreed=accept_restored)
        integrity = "every one as it was signed"
        continuity = (
            f"You accepted that it does not continue what you verified before: {fault.what}."
        )
    write_atomic(seen, checkpoint)
    terminal.say(f"The log {whole.origin} is whole: {_entries(whole.size)}, {integrity}.")
    terminal.say(continuity if before else FIRST)
    _warn_of_restoration(restorations.newest, terminal)
    _report(whole, key, terminal)


CONTINUES = "It continues what you verified before."
FIRST = "You verify it for the first time: later logs are compared with this one."


def _report(whole: VerifiedLog, key: NoteKey, terminal: Terminal) -> None:
    terminal.say(f"Its key is {key.key.fingerprint}.")
    terminal.answer(
        {"origin": whole.origin, "size": whole.size, "root": whole.root.hex(), "whole": True}
    )


class _Restorations:
    """Watches the lines of a log for entries that say that its state was restored."""

    def __init__(self) -> None:
        self.newest: Mapping[str, Any] | None = None

    def watch(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the lines, and remember the newest such entry."""
        self.newest = None
        for line in lines:
            if EventKind.STATE_RESTORED.encode() in line:
                self._look_at(line)
            yield line

    def _look_at(self, line: bytes) -> None:
        with suppress(LogFault):  # the verifier names a damaged line
            entry = next(entries_in([line]))
            if entry["kind"] == EventKind.STATE_RESTORED:
                self.newest = entry


def _warn_of_restoration(entry: Mapping[str, Any] | None, terminal: Terminal) -> None:
    if entry is not None:
        terminal.warn(f"{_as_sentence(entry)}. `log list` shows what was charged for that.")


def _as_sentence(entry: Mapping[str, Any]) -> str:
    reason = quoted(str(entry.get("reason", "nothing")))
    return f"Entry {named(str(entry['index']))} of {named(str(entry['at']))} says: {reason}"


def _accept(
    home: OfficerHome,
    key: NoteKey,
    entry: Mapping[str, Any] | None,
    fault: LogFault,
    *,
    agreed: bool,
) -> None:
    """Move the earlier checkpoint to another file, if `entry` explains why the log lacks entries.

    Raises LogFault if it does not, if it was accepted before, or if the officer has not agreed.
    """
    accepted, former = _memory(home, key.name, "restored"), _memory(home, key.name, "note")
    entry_digest = b"" if entry is None else digest(canonical_json(entry)).encode()
    if entry is None or (accepted.exists() and accepted.read_bytes() == entry_digest):
        raise fault
    if not agreed:
        says = "the node's operator says that its state was restored from a copy"
        raise LogFault(
            fault.what,
            why=f"{says}. {_as_sentence(entry)}",
            fix="ask the operator by voice, and check what was charged; if it is true, run the "
            "command again with --accept-restored",
        )
    write_atomic(former.with_suffix(f".gone-{entry['index']}"), former.read_bytes())
    write_atomic(accepted, entry_digest)


def _memory(home: OfficerHome, origin: str, kind: str) -> Path:
    return home.seen / f"{sha256(origin.encode()).hexdigest()[:32]}.{kind}"


def _before(seen: Path) -> list[bytes]:
    return [seen.read_bytes()] if seen.exists() else []


def _node_key(home: OfficerHome, now: datetime) -> NoteKey:
    own = read_own(home, home.settings(), now)
    if own is None or own.node is None:
        raise OfficerFault(
            "The key with which your node signs its log is not known",
            why="you have not signed your node's keys",
            fix="run `pratique-officer sign node-keys.json`, with the file of `pratique-node init`",
        )
    return NoteKey(own.node.log_origin, VerifyKey.from_text(own.node.log_key))


def _coordinator_key(home: OfficerHome, head: LogHead) -> NoteKey:
    """Return the key that the coordinator's export names. Raises LogFault if it is not known."""
    key = NoteKey.from_text(head.verifier)
    agreement = kept_agreement(home.trust)
    named = agreement.coordinator.log_key if agreement else None
    if named is None:
        return _first_seen(home, key)
    if key.key != VerifyKey.from_text(named):
        raise LogFault(
            f"The log {key.name} is signed by another key than the agreement names",
            why=f"the agreement names {VerifyKey.from_text(named).fingerprint}",
            fix="do not trust this log; a new key needs an amendment that the countries sign",
        )
    return key


def _first_seen(home: OfficerHome, key: NoteKey) -> NoteKey:
    memory = _memory(home, key.name, "vkey")
    if not memory.exists():
        write_atomic(memory, key.to_text().encode())
    elif memory.read_text() != key.to_text():
        raise LogFault(
            f"The log {key.name} is signed by another key than before",
            why=f"the key seen first was {NoteKey.from_text(memory.read_text()).key.fingerprint}",
            fix="ask the coordinator by voice; do not trust this log until then",
        )
    return key
