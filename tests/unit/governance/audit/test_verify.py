import ast
import json
from pathlib import Path

import pytest

from governance.audit import verify
from governance.audit.checkpoint import Checkpoint, sign_checkpoint
from governance.audit.events import entry_bytes
from governance.audit.merkle import leaf_hash
from governance.audit.note import NoteKey
from governance.audit.verify import VerifiedLog, verify_export
from governance.errors import LogFault
from keys.identity import SigningKey
from protocols.wire.encoding import canonical_json
from tests.support.ledger_and_log import LOG_KEY, ORIGIN, event
from tests.support.reference_merkle import reference_root

OWN = NoteKey(ORIGIN, LOG_KEY.public)
ENTRIES = [entry_bytes(event(n), origin=ORIGIN, index=n) for n in range(6)]


def line(entry: bytes) -> bytes:
    return canonical_json({"entry": json.loads(entry), "leaf": leaf_hash(entry).hex()})


def signed(entries: list[bytes], key: SigningKey = LOG_KEY) -> bytes:
    root = reference_root([leaf_hash(entry) for entry in entries])
    return sign_checkpoint(Checkpoint(ORIGIN, len(entries), root), key)


LINES = [line(entry) for entry in ENTRIES]
NOTE = signed(ENTRIES)


def test_a_complete_log_verifies() -> None:
    root = reference_root([leaf_hash(entry) for entry in ENTRIES])
    assert verify_export(LINES, NOTE, OWN) == VerifiedLog(ORIGIN, 6, root)


def test_lines_may_have_line_ends() -> None:
    assert verify_export((each + b"\n" for each in LINES), NOTE, OWN).size == 6


@pytest.mark.parametrize("index", range(len(LINES)))
@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80])
def test_every_flipped_byte_is_found_and_its_entry_named(index: int, mask: int) -> None:
    for position in range(len(LINES[index])):
        changed = bytearray(LINES[index])
        changed[position] ^= mask
        with pytest.raises(LogFault, match=f"Entry {index} "):
            verify_export([*LINES[:index], bytes(changed), *LINES[index + 1 :]], NOTE, OWN)


@pytest.mark.parametrize("index", range(len(LINES)))
def test_an_entry_changed_with_its_hash_is_found_by_the_root(index: int) -> None:
    forged = entry_bytes(event(index, actor="XB"), origin=ORIGIN, index=index)
    lines = [*LINES[:index], line(forged), *LINES[index + 1 :]]
    with pytest.raises(LogFault, match="first 6 entries"):
        verify_export(lines, NOTE, OWN)
    if index < 3:
        with pytest.raises(LogFault, match="first 3 entries"):
            verify_export(lines, NOTE, OWN, seen=[signed(ENTRIES[:3])])


@pytest.mark.parametrize("index", range(len(LINES) - 1))
def test_a_missing_entry_is_named(index: int) -> None:
    with pytest.raises(LogFault, match=f"Entry {index} ") as caught:
        verify_export([*LINES[:index], *LINES[index + 1 :]], NOTE, OWN)
    assert f"entry {index + 1} of" in caught.value.why


def test_entries_out_of_order_or_twice_are_named() -> None:
    with pytest.raises(LogFault, match="Entry 1 "):
        verify_export([LINES[0], LINES[2], LINES[1], *LINES[3:]], NOTE, OWN)
    with pytest.raises(LogFault, match="Entry 1 "):
        verify_export([LINES[0], *LINES], NOTE, OWN)


def test_missing_and_added_entries_at_the_end_are_reported() -> None:
    with pytest.raises(LogFault, match="holds 4 entries, but the checkpoint signs 6"):
        verify_export(LINES[:4], NOTE, OWN)
    with pytest.raises(LogFault, match="holds 0 entries, but the checkpoint signs 6"):
        verify_export([], NOTE, OWN)
    with pytest.raises(LogFault, match="holds 6 entries, but the checkpoint signs 4"):
        verify_export(LINES, signed(ENTRIES[:4]), OWN)


def test_entries_of_another_log_are_named() -> None:
    foreign = entry_bytes(event(2), origin="pratique/demo/node/XB", index=2)
    with pytest.raises(LogFault, match="Entry 2 "):
        verify_export([*LINES[:2], line(foreign), *LINES[3:]], NOTE, OWN)


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"null",
        b"{}",
        LINES[0] + b" ",
        LINES[0] + b"\n\n",
        b'{"leaf":"00"}',
        b'{"entry":null,"leaf":"00"}',
        canonical_json({"entry": json.loads(ENTRIES[0]), "leaf": ""}),
        canonical_json(
            {"entry": json.loads(ENTRIES[0]), "leaf": leaf_hash(ENTRIES[0]).hex(), "more": 1}
        ),
        canonical_json(
            {"entry": json.loads(ENTRIES[0]), "leaf": leaf_hash(ENTRIES[0]).hex().upper()}
        ),
        b"[" * 10_000,
        b"x" * 1_000_000,
    ],
)
def test_malformed_lines_are_named(bad: bytes) -> None:
    with pytest.raises(LogFault, match="Entry 0 "):
        verify_export([bad, *LINES[1:]], NOTE, OWN)


def test_earlier_checkpoints_must_be_of_this_log() -> None:
    checkpoints = [signed(ENTRIES[:size]) for size in range(1, 7)]
    assert verify_export(LINES, NOTE, OWN, seen=checkpoints).size == 6


def test_an_earlier_checkpoint_reveals_a_rolled_back_log() -> None:
    with pytest.raises(LogFault, match="rolled back: 6 entries were signed before, 4 now"):
        verify_export(LINES[:4], signed(ENTRIES[:4]), OWN, seen=[NOTE])


def test_an_earlier_checkpoint_reveals_a_forked_log() -> None:
    other = [*ENTRIES[:3], entry_bytes(event(3, actor="XB"), origin=ORIGIN, index=3)]
    with pytest.raises(LogFault, match="first 4 entries"):
        verify_export(LINES, NOTE, OWN, seen=[signed(other)])


def test_a_checkpoint_by_another_key_is_refused() -> None:
    stranger = SigningKey.generate()
    with pytest.raises(LogFault, match="not signed by"):
        verify_export(LINES, signed(ENTRIES, stranger), OWN)
    with pytest.raises(LogFault, match="not signed by"):
        verify_export(LINES, NOTE, OWN, seen=[signed(ENTRIES[:2], stranger)])


def reachable(module: str) -> set[str]:
    """Modules of this project that the verifier imports, directly or not."""
    modules, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name in modules:
            continue
        modules.add(name)
        path = Path(*name.split(".")).with_suffix(".py")
        source = Path(__file__).resolve().parents[4] / path
        if source.exists():
            waiting += imported(ast.parse(source.read_text()))
    return modules


def imported(tree: ast.Module) -> list[str]:
    plain = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    origins = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
    deeper = [f"{n.module}.{a.name}" for n in origins for a in n.names]
    return plain + deeper + [str(n.module) for n in origins]


def test_the_verifier_shares_no_code_with_the_store() -> None:
    modules = reachable(verify.__name__)
    assert "governance.audit.merkle" in modules
    assert not modules & {
        "governance.audit.log",
        "governance.runtime.database",
        "governance.budget.ledger",
    }
    assert not any(name.startswith(("sqlalchemy", "sqlite3")) for name in modules)
