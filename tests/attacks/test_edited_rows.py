"""Every row and column of the state databases, edited by somebody who has no key.

The edits are generated from the schema: a column that is added later is edited, too, and must be
guarded or listed here with the reason why it decides nothing. `tests/attacks/test_edited_state.py`
shows that start, `doctor` and `log verify` make the check that is called here.
"""

from pathlib import Path

from sqlalchemy import Engine

from client.state.decision_log import log_origin
from client.state.state_check import StateCheck, open_log
from governance.audit.events import Event, EventKind
from governance.audit.log_key import LogKey
from governance.runtime.database import open_database, transaction
from protocols.wire.signed_message import COORDINATOR
from server.state import signed_log
from server.state.tables import COORDINATOR_TABLES, MIGRATIONS
from tests.support.documents import NOW
from tests.support.ledger_and_log import LOG_KEY, ORIGIN
from tests.support.node_federation import NodeFederation, keyring_of
from tests.support.row_edits import engine_on, image_of, opened, tables, unnoticed

COUNTRY = "DK"
DECIDES_NOTHING = {
    "journal.reply emptied": "as the node itself erases it: a repeated request is refused then",
    "log_heads deleted": "it is made again; each is compared with the signed head before it leaves",
}
"""Edits that no check notices, and why they decide nothing (docs/adr/0025)."""
VERIFIED_AT_EACH_USE = frozenset({"documents"})
"""Signatures and the highest versions decide whether these count; a damaged copy is fetched again
(`tests/protocol/test_mirror_limits.py`)."""
NOT_COVERED = frozenset(COORDINATOR_TABLES.tables)
"""The coordinator signs its log alone: these hold what it knows of parties and runs."""


def test_every_edit_of_a_nodes_rows_is_noticed_unless_it_decides_nothing(tmp_path: Path) -> None:
    """Changed, emptied, of another row, deleted, copied, or replayed from an earlier state."""
    before, after = states_of_a_node(tmp_path)
    check_node(engine_on(opened(after)))
    covered = set(tables(opened(after))) - VERIFIED_AT_EACH_USE
    found = unnoticed(before, after, check_node, only=covered)
    assert found == DECIDES_NOTHING.keys()


def check_node(engine: Engine) -> None:
    log = open_log(engine, log_origin(COUNTRY), keyring_of(COUNTRY).log_key, former=False)
    StateCheck(engine, log, COUNTRY).require_intact()


def states_of_a_node(folder: Path) -> tuple[bytes, bytes]:
    """Return a node's database after one run, and again with rows of every kind in every table."""
    federation = NodeFederation(folder / "federation")
    database = federation.home(COUNTRY).database
    federation.ready(federation.approved()).sum(1, "histogram")
    before = image_of(database)
    federation.nodes[COUNTRY].parts.log.checkpoint()
    federation.ready(federation.approved(id="later-study"))
    parts = federation.nodes[COUNTRY].parts
    with transaction(parts.engine) as connection:
        parts.opt_outs.confirm(["p900", "p901"], NOW, connection)
    parts.log.checkpoint()
    after = image_of(database)
    federation.close()
    return before, after


def test_every_edit_of_the_coordinators_log_is_noticed(tmp_path: Path) -> None:
    engine, images = open_database(tmp_path / "state.db", MIGRATIONS), list[bytes]()
    log = signed_log.open_log(engine, ORIGIN, LogKey(LOG_KEY))
    for _ in range(2):
        for kind in (EventKind.COORDINATOR_STARTED, EventKind.COORDINATOR_STOPPED):
            log.append(Event(kind=kind, at=NOW, actor=COORDINATOR))
        log.checkpoint()
        images.append(image_of(tmp_path / "state.db"))
    engine.dispose()
    check_coordinator(engine_on(opened(images[1])))
    covered = set(tables(opened(images[1]))) - NOT_COVERED
    found = unnoticed(images[0], images[1], check_coordinator, only=covered)
    assert found == {"log_heads deleted"}


def check_coordinator(engine: Engine) -> None:
    signed_log.require_intact(signed_log.open_log(engine, ORIGIN, LogKey(LOG_KEY)))
