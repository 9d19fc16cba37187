"""Somebody who can write `state.db`, and has no key, edits it while the node is off.

Every edit that would spend a budget twice, make a used permit usable, free the place of a reply, or
rewrite the log must be refused when the node starts, in `doctor` and in `log verify`. All three
make the same check (`client.state.state_check`); a test below holds them to it.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from client.commands.check_result import CheckState
from client.commands.doctor import Doctor
from governance.audit.checkpoint import Checkpoint
from governance.audit.events import Event, EventKind, entry_bytes
from governance.audit.merkle import completed_by, leaf_hash
from governance.documents.study import Study
from keys.errors import PratiqueError
from tests.support.documents import NOW
from tests.support.joining_node import create_joining_node
from tests.support.keystore import PASSPHRASE
from tests.support.node_federation import NodeFederation
from tests.support.reference_merkle import reference_root

COUNTRY = "DK"
Edit = Callable[[sqlite3.Connection], object]


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodeFederation, Study, Path]]:
    """A federation after a whole run, and a copy of one node's database."""
    federation = NodeFederation(tmp_path_factory.mktemp("used") / "federation")
    study = federation.approved()
    federation.ready(study).sum(1, "histogram")
    database = federation.home(COUNTRY).database
    federation.nodes[COUNTRY].parts.engine.dispose()
    with closing(sqlite3.connect(database)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    copy = database.with_suffix(".copy")
    shutil.copy(database, copy)
    shutil.copy(federation.home(COUNTRY).log_head, copy.with_name("head.copy"))
    yield federation, study, copy
    federation.close()


@pytest.fixture
def node(used: tuple[NodeFederation, Study, Path]) -> "EditedNode":
    federation, _, copy = used
    database = federation.home(COUNTRY).database
    for side in ("-wal", "-shm"):
        database.with_name(database.name + side).unlink(missing_ok=True)
    shutil.copy(copy, database)
    shutil.copy(copy.with_name("head.copy"), federation.home(COUNTRY).log_head)
    return EditedNode(federation, database)


class EditedNode:
    """A node that is off, whose database can be edited without its key."""

    def __init__(self, federation: NodeFederation, database: Path) -> None:
        self.federation, self.database = federation, database

    def edit(self, change: Edit) -> None:
        """Edit the database as one can with sqlite3: the triggers are dropped and made again."""
        with closing(sqlite3.connect(self.database)) as raw, raw:
            triggers = raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
            made = triggers.fetchall()
            for name, _ in made:
                raw.execute(f"DROP TRIGGER {name}")
            change(raw)
            for _, sql in made:
                with suppress(sqlite3.OperationalError):  # the table may be gone
                    raw.execute(sql)

    def start(self, **changes: Any) -> int:
        """Start and end the node; return the number of entries of its log."""
        node = self.federation.made(COUNTRY, **changes)
        try:
            node.parts.log_head.move()
            return node.parts.log.size()
        finally:
            node.parts.engine.dispose()

    def refused(self) -> str:
        with pytest.raises(PratiqueError) as refusal:
            self.start()
        assert refusal.value.why
        assert refusal.value.fix
        return str(refusal.value)


def test_an_unchanged_database_starts(node: EditedNode) -> None:
    size = node.start()
    with closing(sqlite3.connect(node.database)) as raw:
        raw.execute("VACUUM")
    assert node.start() == size, "a check writes nothing"


COLUMNS = {
    "ledger_entries": "position register period study run phase mechanism honest order "
    "rdp_micro created",
    "log_entries": "position entry leaf_hash",
    "log_nodes": "level position hash",
    "journal": "run_id round phase request_digest ctx created",
    "cohort_counts": "permit data_version decision created",
    "settings": "name value",
    "signed_head": "note",
}
ALL = [(table, column) for table, names in COLUMNS.items() for column in names.split()]
"""Every column that decides something; `journal.reply` is erased in time, and runs are sealed."""


@pytest.mark.parametrize("which", ["last", pytest.param("first", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("table", "column"), ALL)
def test_no_column_of_any_row_can_be_changed(
    node: EditedNode, table: str, column: str, which: str
) -> None:
    def change(raw: sqlite3.Connection) -> None:
        way = "min" if which == "first" else "max"
        where = f"WHERE rowid = (SELECT {way}(rowid) FROM {table})"  # noqa: S608
        (value,) = raw.execute(f'SELECT "{column}" FROM {table} {where}').fetchone()  # noqa: S608
        raw.execute(f'UPDATE {table} SET "{column}" = ? {where}', (other(value),))  # noqa: S608

    node.edit(change)
    node.refused()


def other(value: object) -> object:
    """Return another value of the same type, as like it as possible."""
    if isinstance(value, int):
        return value + 1_000
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1])
    text = str(value)
    return text[:-1] + ("0" if text[-1] != "0" else "1")


EDITS: dict[str, Edit] = {
    "a charge is lowered": lambda raw: raw.execute("UPDATE ledger_entries SET rdp_micro = 1"),
    "the ledger is emptied": lambda raw: raw.execute("DELETE FROM ledger_entries"),
    "the last charge is removed": lambda raw: raw.execute(
        "DELETE FROM ledger_entries WHERE position = (SELECT max(position) FROM ledger_entries)"
    ),
    "a charge is added": lambda raw: raw.execute(
        "INSERT INTO ledger_entries SELECT 9, register, period, study, 'another', phase, "
        'mechanism, honest, "order", rdp_micro, created FROM ledger_entries LIMIT 1'
    ),
    "two charges change places": lambda raw: raw.executescript(
        "UPDATE ledger_entries SET position = 90 WHERE position = 0;"
        "UPDATE ledger_entries SET position = 0 WHERE position = 1;"
        "UPDATE ledger_entries SET position = 1 WHERE position = 90;"
    ),
    "price and mechanism are lowered together": lambda raw: raw.execute(
        "UPDATE ledger_entries SET rdp_micro = rdp_micro / 4, mechanism = "
        "replace(mechanism, '\"rounds\":1', '\"rounds\":0')"
    ),
    "the charges are dated back": lambda raw: raw.execute(
        "UPDATE ledger_entries SET created = '2020' || substr(created, 5)"
    ),
    "the charges are of another register": lambda raw: raw.execute(
        "UPDATE ledger_entries SET register = 'another'"
    ),
    "the count is forgotten": lambda raw: raw.execute("DELETE FROM cohort_counts"),
    "a reply's place is free again": lambda raw: raw.execute(
        "DELETE FROM journal WHERE phase = 'contribute'"
    ),
    "all places are free again": lambda raw: raw.execute("DELETE FROM journal"),
    "the last entry is removed": lambda raw: raw.execute(
        "DELETE FROM log_entries WHERE position = (SELECT max(position) FROM log_entries)"
    ),
    "the log is emptied": lambda raw: raw.executescript(
        "DELETE FROM log_entries; DELETE FROM log_nodes"
    ),
    "a node of the tree is removed": lambda raw: raw.execute(
        "DELETE FROM log_nodes WHERE level = 1 AND position = 0"
    ),
    "a node that is not in the tree is added": lambda raw: raw.execute(
        "INSERT INTO log_nodes VALUES (20, 0, x'00')"
    ),
    "the signed head is removed": lambda raw: raw.execute("DELETE FROM signed_head"),
    "the pause is removed, or set": lambda raw: raw.execute(
        'INSERT OR REPLACE INTO settings VALUES (\'paused\', \'{"reason":"","since":""}\')'
    ),
    "the budget periods are forgotten": lambda raw: raw.execute(
        "DELETE FROM settings WHERE name = 'budget-periods'"
    ),
    "the log-head file is said to be optional": lambda raw: raw.execute(
        "INSERT INTO settings VALUES ('log-head-never-kept', 'upgraded')"
    ),
    "a number becomes a text": lambda raw: raw.execute(
        "UPDATE ledger_entries SET rdp_micro = 'none'"
    ),
    "a mechanism becomes unreadable": lambda raw: raw.execute(
        "UPDATE ledger_entries SET mechanism = '{'"
    ),
    "an entry becomes a text": lambda raw: raw.execute(
        "UPDATE log_entries SET entry = 'x' WHERE position = 3"
    ),
    "a trigger makes every later charge cheap": lambda raw: raw.execute(
        "CREATE TRIGGER cheap AFTER INSERT ON ledger_entries BEGIN "
        "UPDATE ledger_entries SET rdp_micro = 0 WHERE position = NEW.position; END"
    ),
    "a view replaces the ledger": lambda raw: raw.executescript(
        "ALTER TABLE ledger_entries RENAME TO hidden;"
        "CREATE VIEW ledger_entries AS SELECT * FROM hidden WHERE 0"
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_database_is_refused(node: EditedNode, name: str) -> None:
    node.edit(EDITS[name])
    node.refused()


def test_a_dropped_trigger_is_refused(node: EditedNode) -> None:
    with closing(sqlite3.connect(node.database)) as raw, raw:
        raw.execute("DROP TRIGGER ledger_entries_update")
    assert "ledger_entries_update" in node.refused()


AS_BYTES = (
    "UPDATE journal SET run_id = CAST(run_id AS BLOB)",
    "UPDATE journal SET phase = CAST(phase AS BLOB)",
    "UPDATE ledger_entries SET run = CAST(run AS BLOB)",
    "UPDATE cohort_counts SET decision = CAST(decision AS BLOB)",
)


@pytest.mark.parametrize("statement", AS_BYTES)
def test_a_text_that_becomes_bytes_is_refused(node: EditedNode, statement: str) -> None:
    """SQLite keeps bytes in a column of texts, and no comparison with a text finds them then."""
    node.edit(lambda raw: raw.execute(statement))
    node.refused()


def test_a_run_id_that_becomes_the_bytes_of_its_digits_is_refused(node: EditedNode) -> None:
    """Its place would be free for another contribution of the same run, which is charged."""

    def as_bytes(raw: sqlite3.Connection) -> None:
        for (run,) in raw.execute("SELECT DISTINCT run_id FROM journal").fetchall():
            raw.execute("UPDATE journal SET run_id = ? WHERE run_id = ?", (bytes.fromhex(run), run))

    node.edit(as_bytes)
    node.refused()


def test_an_index_that_hides_charges_is_refused(node: EditedNode) -> None:
    """Sums of charges are read through an index, which an attacker can empty by itself."""
    with closing(sqlite3.connect(node.database)) as raw, raw:
        of_index = "WHERE name = 'ledger_by_time'"
        (sql,) = raw.execute(f"SELECT sql FROM sqlite_master {of_index}").fetchone()  # noqa: S608
        raw.execute("DROP INDEX ledger_by_time")
        raw.execute(f"{sql} WHERE honest < 0")
        raw.execute("PRAGMA writable_schema = ON")
        raw.execute(f"UPDATE sqlite_master SET sql = ? {of_index}", (sql,))  # noqa: S608
    node.refused()


def test_a_log_rewritten_with_right_hashes_is_refused(node: EditedNode) -> None:
    """Whatever is consistent, the log-head file included: without the key it cannot be signed."""
    node.edit(rewritten)
    with closing(sqlite3.connect(node.database)) as raw:
        leaves = [leaf for (leaf,) in raw.execute("SELECT leaf_hash FROM log_entries")]
    head = Checkpoint("pratique/dk/node", len(leaves), reference_root(leaves))
    node.federation.home(COUNTRY).log_head.write_text(head.to_text())
    assert f"first {len(leaves)} entries are not those that were signed" in node.refused()


def rewritten(raw: sqlite3.Connection) -> None:
    """Replace the last entry by a harmless one, with the hashes and nodes that fit."""
    entries = [entry for (entry,) in raw.execute("SELECT entry FROM log_entries ORDER BY position")]
    assert b'"rows":' not in entries[-1]
    event = Event(kind=EventKind.NODE_PAUSED, at=NOW, actor=COUNTRY)
    entries[-1] = entry_bytes(event, origin="pratique/dk/node", index=len(entries) - 1)
    raw.executescript("DELETE FROM log_entries; DELETE FROM log_nodes")
    nodes: dict[tuple[int, int], bytes] = {}
    for index, entry in enumerate(entries):
        leaf = nodes[0, index] = leaf_hash(entry)
        raw.execute("INSERT INTO log_entries VALUES (?, ?, ?)", (index, entry, leaf))
        for made in completed_by(index, leaf, lambda level, at: nodes[level, at]):
            nodes[made.level, made.index] = made.hash
            row = made.level, made.index, made.hash
            raw.execute("INSERT INTO log_nodes VALUES (?, ?, ?)", row)


def test_an_older_signed_head_does_not_make_a_shorter_log_right(node: EditedNode) -> None:
    """The note of an earlier commit is genuine; the log-head file knows that there were more."""
    with closing(sqlite3.connect(node.database)) as raw:
        (before,) = raw.execute("SELECT note FROM signed_head").fetchone()
    started = node.federation.made(COUNTRY)
    started.note_start()
    started.parts.log_head.move()
    started.parts.engine.dispose()
    node.edit(EDITS["the last entry is removed"])
    node.edit(lambda raw: raw.execute("UPDATE signed_head SET note = ?", (before,)))
    assert "is older than what this node has already sent" in node.refused()


def test_a_new_database_is_refused_although_every_file_of_the_old_one_is_gone(
    node: EditedNode,
) -> None:
    node.database.unlink()
    node.federation.home(COUNTRY).log_head.unlink()
    with pytest.raises(PratiqueError, match="no signed head"):
        node.start(unsigned=False)


def test_settings_that_were_edited_while_the_node_ran_are_not_signed_again(
    node: EditedNode,
) -> None:
    started = node.federation.made(COUNTRY)
    started.parts.log_head.move()
    with closing(sqlite3.connect(node.database)) as raw, raw:
        raw.execute("DELETE FROM settings WHERE name = 'budget-periods'")
    with pytest.raises(PratiqueError, match="does not continue the head"):
        started.note_start()
    started.parts.engine.dispose()


def test_start_doctor_and_log_verify_make_the_same_check(tmp_path: Path) -> None:
    """`log verify` asks the daemon for it (tests/unit/governance/officer/test_logs.py)."""
    home = create_joining_node(tmp_path)
    doctor = Doctor(home=home, passphrase=lambda: PASSPHRASE, dial=unused, clock=lambda: NOW)
    assert state_of(doctor) is CheckState.GOOD
    with closing(sqlite3.connect(home.database)) as raw, raw:
        raw.execute("DELETE FROM signed_head")
    assert state_of(doctor) is CheckState.FAILED


def unused(*_: object, **__: object) -> Any:
    raise AssertionError("the node is not enrolled")


def state_of(doctor: Doctor) -> CheckState:
    return next(result.state for result in doctor.results() if result.name == "state")


@pytest.mark.parametrize("name", list(EDITS))
def test_the_check_of_a_running_node_finds_each_edit_and_writes_nothing(
    node: EditedNode, name: str
) -> None:
    """It is what `doctor` and `log verify` rely on; no later write may have to notice it."""
    node.edit(EDITS[name])
    before = node.database.read_bytes()
    checked = node.federation.made(COUNTRY)
    try:
        with pytest.raises(PratiqueError):
            checked.check_state()
    finally:
        checked.parts.engine.dispose()
    assert node.database.read_bytes() == before
