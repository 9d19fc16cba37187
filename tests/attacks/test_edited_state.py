"""Somebody who can write `state.db`, and has no key, edits it while the node is off.

Every edit that would spend a budget twice, make a used permit usable, free the place of a reply, or
rewrite the log must be refused when the node starts, in `doctor` and in `log verify`. All three
make the same check (`client.state.state_check`); a test below holds them to it.
"""

import shutil
import sqlite3
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from client.commands.check_result import CheckState
from client.commands.doctor import Doctor
from client.errors import NodeFault
from client.state.incarnation import Incarnation, begin
from governance.audit.checkpoint import Checkpoint
from governance.audit.events import Event, EventKind, entry_bytes
from governance.audit.merkle import completed_by, leaf_hash
from governance.audit.note import sign_note
from governance.documents.study import Study
from governance.errors import LogFault
from keys.errors import PratiqueError
from protocols.wire.encoding import canonical_json, digest
from server.exchange.fencing import Fence, NoStore, SignIn
from tests.support.documents import NOW
from tests.support.joining_node import create_joining_node
from tests.support.keystore import PASSPHRASE
from tests.support.node_federation import NodeFederation, keyring_of
from tests.support.reference_merkle import reference_root
from tests.support.row_edits import Edit, edited

COUNTRY = "DK"


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
        self.before: dict[str, list[tuple[Any, ...]]] = {}

    def edit(self, change: Edit | str) -> None:
        """Edit the database as one can with sqlite3; a text is SQL."""
        with closing(sqlite3.connect(self.database)) as raw, raw:
            edited(raw, change)

    def start(self, **changes: Any) -> int:
        """Start and end the node; return the number of entries of its log."""
        node = self.federation.made(COUNTRY, **changes)
        try:
            node.parts.log_head.move()
            return node.parts.log.size()
        finally:
            node.parts.engine.dispose()

    def check(self) -> None:
        """Make the check that a running node makes for `log verify`."""
        node = self.federation.made(COUNTRY)
        try:
            node.check_state()
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


EDITS = {
    "a charge is lowered": "UPDATE ledger_entries SET rdp_micro = 1",
    "the ledger is emptied": "DELETE FROM ledger_entries",
    "a charge is added": "INSERT INTO ledger_entries SELECT 9, register, period, study, 'another', "
    'phase, mechanism, honest, "order", rdp_micro, created, part FROM ledger_entries LIMIT 1',
    "a charge is given to a part of the patients": "UPDATE ledger_entries SET part = 'held-out'",
    "two charges change places": "UPDATE ledger_entries SET position = 90 WHERE position = 0;"
    "UPDATE ledger_entries SET position = 0 WHERE position = 1;"
    "UPDATE ledger_entries SET position = 1 WHERE position = 90",
    "price and mechanism are lowered together": "UPDATE ledger_entries SET "
    "rdp_micro = rdp_micro / 4, mechanism = replace(mechanism, '\"rounds\":1', '\"rounds\":0')",
    "the charges are dated back": "UPDATE ledger_entries SET "
    "created = '2020' || substr(created, 5)",
    "the charges are of another register": "UPDATE ledger_entries SET register = 'another'",
    "a run began in this period": "UPDATE runs SET created = '2099' || substr(created, 5)",
    "a run ended before this period": "UPDATE runs SET ended = '2020' || substr(ended, 5)",
    "no run was ever entered": "DELETE FROM runs",
    "a run that ended lives on": "UPDATE runs SET ended = NULL, state = x'00'",
    "all places are free again": "DELETE FROM journal",
    "the log is emptied": "DELETE FROM log_entries; DELETE FROM log_nodes",
    "the last entry is removed": "DELETE FROM log_entries "
    "WHERE position = (SELECT max(position) FROM log_entries)",
    "a node that is not in the tree is added": "INSERT INTO log_nodes VALUES (20, 0, x'00')",
    "the pause is removed, or set": "INSERT OR REPLACE INTO settings "
    'VALUES (\'paused\', \'{"reason":"","since":""}\')',
    "the log-head file is said to be optional": "INSERT INTO settings "
    "VALUES ('log-head-never-kept', 'upgraded')",
    "the digest of live runs is forgotten": "DELETE FROM settings WHERE name = 'rows-of-runs'",
    "a number becomes a text": "UPDATE ledger_entries SET rdp_micro = 'none'",
    "a mechanism becomes unreadable": "UPDATE ledger_entries SET mechanism = '{'",
    "an entry becomes a text": "UPDATE log_entries SET entry = 'x' WHERE position = 3",
    "a reply becomes a text": "UPDATE journal SET reply = 'x'",
    "a trigger makes every later charge cheap": "CREATE TRIGGER cheap AFTER INSERT ON "
    "ledger_entries BEGIN UPDATE ledger_entries SET rdp_micro = 0 WHERE position = NEW.position; "
    "END",
    "a view replaces the ledger": "ALTER TABLE ledger_entries RENAME TO hidden;"
    "CREATE VIEW ledger_entries AS SELECT * FROM hidden WHERE 0",
    "a table removes what its key removes": "CREATE TABLE journal_copy (run_id VARCHAR(32), "
    "round INTEGER, phase VARCHAR(32), request_digest VARCHAR(71), ctx BLOB, reply BLOB, "
    "created VARCHAR(27), gone VARCHAR(64) REFERENCES settings (name) ON DELETE CASCADE, "
    "PRIMARY KEY (run_id, round, phase));"
    "INSERT INTO journal_copy SELECT *, NULL FROM journal;"
    "DROP TABLE journal; ALTER TABLE journal_copy RENAME TO journal",
    "a table is gone": "DROP TABLE cohort_counts",
    "the table of revisions is gone": "DROP TABLE alembic_version",
    # SQLite keeps bytes in a column of texts, and no comparison with a text finds them then.
    "texts of places become bytes": "UPDATE journal SET run_id = CAST(run_id AS BLOB)",
    "names of phases become bytes": "UPDATE journal SET phase = CAST(phase AS BLOB)",
    "runs of charges become bytes": "UPDATE ledger_entries SET run = CAST(run AS BLOB)",
    "decisions become bytes": "UPDATE cohort_counts SET decision = CAST(decision AS BLOB)",
    "ids of runs become bytes": "UPDATE runs SET run_id = CAST(run_id AS BLOB)",
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_database_is_refused_and_a_running_node_reports_it(
    node: EditedNode, name: str
) -> None:
    """The check of a running node is what `doctor` and `log verify` rely on; it writes nothing."""
    node.edit(EDITS[name])
    before = node.database.read_bytes()
    with pytest.raises(PratiqueError):
        node.check()
    assert node.database.read_bytes() == before
    node.refused()


def test_a_dropped_trigger_is_refused(node: EditedNode) -> None:
    with closing(sqlite3.connect(node.database)) as raw, raw:
        raw.execute("DROP TRIGGER ledger_entries_update")
    assert "ledger_entries_update" in node.refused()


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


@pytest.fixture
def paused(node: EditedNode) -> EditedNode:
    """A node that was paused since; the pause is a setting, and this test logs nothing of it."""
    with closing(sqlite3.connect(node.database)) as raw:
        node.before = {
            table: raw.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
            for table in ("settings", "signed_head")
        }
    started = node.federation.made(COUNTRY)
    started.parts.log_head.move()
    started.parts.pause.set("an incident", NOW)
    started.parts.log_head.move()
    started.parts.engine.dispose()
    return node


def restore_rows(raw: sqlite3.Connection, rows: dict[str, list[tuple[Any, ...]]]) -> None:
    for table, values in rows.items():
        raw.execute(f"DELETE FROM {table}")  # noqa: S608
        raw.executemany(f"INSERT INTO {table} VALUES (?, ?)", values)  # noqa: S608


def test_the_settings_of_an_older_head_of_the_same_size_are_refused(paused: EditedNode) -> None:
    """The head is genuine, and the log has as many entries; the counter of heads has risen."""
    paused.edit(lambda raw: restore_rows(raw, paused.before))
    with pytest.raises(NodeFault, match="is older than what this node has already sent") as refusal:
        paused.check()
    assert "number" in refusal.value.why
    assert paused.refused() == str(refusal.value)


def test_an_older_head_restored_under_a_running_node_is_not_continued(
    paused: EditedNode,
) -> None:
    started = paused.federation.made(COUNTRY)
    started.parts.log_head.move()
    paused.edit(lambda raw: restore_rows(raw, paused.before))
    with pytest.raises(LogFault, match="does not continue the head"):
        started.parts.pause.set("another incident", NOW)
    with pytest.raises(NodeFault, match="is older than what this node has already sent"):
        started.parts.log_head.move()
    started.parts.engine.dispose()


@pytest.fixture
def former(tmp_path: Path) -> Iterator[EditedNode]:
    """A node as the version before left it: no counter, and no word about runs and documents."""
    federation = NodeFederation(tmp_path / "federation")
    federation.ready(federation.approved())
    federation.nodes[COUNTRY].parts.engine.dispose()
    node = EditedNode(federation, federation.home(COUNTRY).database)
    node.edit(as_signed_before)
    name, size, root, *_ = federation.home(COUNTRY).log_head.read_text().splitlines()
    checkpoint = Checkpoint(name.removesuffix("/state"), int(size), b64decode(root))
    federation.home(COUNTRY).log_head.write_text(checkpoint.to_text())
    yield node
    federation.close()


def as_signed_before(raw: sqlite3.Connection) -> None:
    raw.execute("DELETE FROM settings WHERE name LIKE 'rows-of-%'")
    raw.execute("UPDATE runs SET state = NULL, ended = created")
    rows = raw.execute("SELECT name, value FROM settings ORDER BY name")
    covered = digest(canonical_json([list(row) for row in rows]))
    name, size, root, *_ = raw.execute("SELECT note FROM signed_head").fetchone()[0].splitlines()
    text = "".join(f"{line}\n" for line in (name.decode(), size.decode(), root.decode(), covered))
    note = sign_note(text, name.decode(), keyring_of(COUNTRY).log_key)
    raw.execute("UPDATE signed_head SET note = ?", (note,))


def test_a_head_of_an_earlier_version_is_verified_and_replaced(former: EditedNode) -> None:
    """From then on runs, documents and opt-outs cannot be edited either."""
    former.check()
    size = former.start()
    assert former.start() == size, "signed once"
    former.edit("UPDATE runs SET created = '2020' || substr(created, 5)")
    former.refused()


@pytest.mark.parametrize("edit", ["DELETE FROM journal", "DELETE FROM settings"])
def test_what_an_earlier_version_signed_is_checked_before_it_is_signed_again(
    former: EditedNode, edit: str
) -> None:
    former.edit(edit)
    former.refused()


def test_a_whole_folder_of_an_earlier_time_is_reported_by_the_coordinator_and_by_log_verify(
    node: EditedNode,
) -> None:
    """The machine itself cannot notice: database and log-head are of one moment (decision 13)."""
    files = node.database, node.federation.home(COUNTRY).log_head
    earlier, reported = [file.read_bytes() for file in files], list[str]()
    fence = Fence(NoStore(), on_dispute=reported.append, clock=lambda: 0.0)

    def signed_in() -> tuple[Incarnation, Checkpoint]:
        started = node.federation.made(COUNTRY)
        started.note_start()
        session = begin(started.parts.engine)
        fence.sign_in(COUNTRY, SignIn(session.session, session.number, session.former))
        fence.ended(COUNTRY, session.session)
        started.note_stop()
        head = started.parts.log.head()
        started.parts.engine.dispose()
        return session, head

    former, seen_by_officer = signed_in()
    assert not reported
    for file, content in zip(files, earlier, strict=True):
        file.write_bytes(content)
    restored = node.federation.made(COUNTRY)
    with pytest.raises(LogFault, match="were signed before"):
        restored.parts.log.require_head(seen_by_officer)
    restored.parts.engine.dispose()
    again, _ = signed_in()
    assert (again.number, reported) == (former.number, [COUNTRY])


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
