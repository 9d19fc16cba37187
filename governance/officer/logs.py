"""List and verify the audit logs of daemons on this machine, with keys that the officer trusts.

A node's log key comes from its country's signed documents, a coordinator's from the agreement. If
the agreement names no log key, the key seen first is remembered, and a later change is reported.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from governance.audit.events import EventKind
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
HEADINGS = ("entry", "time", "event", "by", "decision", "about", "reason")
SHOWN_DIGEST = 12


class Export(BaseModel):
    """A whole log as a daemon exports it: its lines, the signed checkpoint, the key it names."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    entries: tuple[str, ...]
    checkpoint: str
    verifier: str


@dataclass(frozen=True)
class Source:
    """A daemon's log: its folder, and which daemon it is."""

    folder: Path
    coordinator: bool

    @property
    def socket(self) -> Path:
        """The socket of the daemon's local RPC server."""
        return self.folder / (COORDINATOR_SOCKET if self.coordinator else NODE_SOCKET)

    def fetch(self) -> "Export":
        """Return the entries and the checkpoint. Raises LocalRpcFault, LogFault."""
        try:
            return Export.model_validate(ask(self.socket, "log_entries"))
        except LocalRpcFault as fault:
            if isinstance(fault.__cause__, OSError):
                raise self._silent(fault) from fault
            raise
        except ValidationError:
            raise _not_a_log(self.folder) from None

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
    lines = source.fetch().entries
    try:
        entries = [json.loads(line)["entry"] for line in lines]
        rows = [_row(entry) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _not_a_log(source.folder) from None
    chosen = entries if last is None else entries[-last:]
    terminal.table(HEADINGS, rows[-len(chosen) :] if chosen else [])
    terminal.say(f"{len(chosen)} of {_entries(len(entries))}. `log verify` checks them all.")
    terminal.answer(chosen)


def _entries(number: int) -> str:
    return counted(number, "entry", "entries")


def _not_a_log(folder: Path) -> LogFault:
    return LogFault(
        f"The daemon of {folder} sent no readable log",
        why="its reply does not have the form of a log",
        fix="use the command of the same version as the daemon",
    )


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

    With `accept_restored`, a node's log need not continue what was verified before, if an entry
    says that the node's state was restored from a copy; each such entry is accepted once.
    """
    export = source.fetch()
    key = _coordinator_key(home, export) if source.coordinator else _node_key(home, now)
    seen = _memory(home, key.name, "note")
    checkpoint, lines = export.checkpoint.encode(), [line.encode() for line in export.entries]
    before, continuity = _before(seen), CONTINUES
    integrity = "none changed, none gone"
    try:
        whole = verify_export(lines, checkpoint, key, seen=before)
    except LogFault as fault:
        if not before or source.coordinator:
            raise
        whole = verify_export(lines, checkpoint, key)  # a restored log must still be whole
        _accept(home, key, _restoration(lines), fault, agreed=accept_restored)
        integrity = "every one as it was signed"
        continuity = (
            f"You accepted that it does not continue what you verified before: {fault.what}."
        )
    write_atomic(seen, checkpoint)
    terminal.say(f"The log {whole.origin} is whole: {_entries(whole.size)}, {integrity}.")
    terminal.say(continuity if before else FIRST)
    _warn_of_restoration(lines, terminal)
    _report(whole, key, terminal)


CONTINUES = "It continues what you verified before."
FIRST = "You verify it for the first time: later logs are compared with this one."


def _report(whole: VerifiedLog, key: NoteKey, terminal: Terminal) -> None:
    terminal.say(f"Its key is {key.key.fingerprint}.")
    terminal.answer(
        {"origin": whole.origin, "size": whole.size, "root": whole.root.hex(), "whole": True}
    )


def _restoration(lines: Sequence[bytes]) -> Mapping[str, Any] | None:
    """Return the newest entry of a verified log that says that its state was restored."""
    entries = (json.loads(line)["entry"] for line in reversed(lines))
    return next((e for e in entries if e["kind"] == EventKind.STATE_RESTORED), None)


def _warn_of_restoration(lines: Sequence[bytes], terminal: Terminal) -> None:
    entry = _restoration(lines)
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


def _coordinator_key(home: OfficerHome, export: Export) -> NoteKey:
    """Return the key that the coordinator's export names. Raises LogFault if it is not known."""
    key = NoteKey.from_text(export.verifier)
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
