"""A daemon's log export verifies by the key that comes with it."""

from pathlib import Path

from governance.audit.exported import export_log
from governance.audit.note import NoteKey
from governance.audit.verify import verify_export
from tests.support.ledger_and_log import audit_log, event, node_state


def test_a_complete_export_verifies(tmp_path: Path) -> None:
    log = audit_log(node_state(tmp_path))
    for _ in range(5):
        log.append(event())
    export = export_log(log)
    lines = [line.encode() for line in export["entries"]]
    whole = verify_export(
        lines, export["checkpoint"].encode(), NoteKey.from_text(export["verifier"])
    )
    assert whole.size == 5


def test_a_partial_export_has_a_checkpoint_of_the_complete_log(tmp_path: Path) -> None:
    log = audit_log(node_state(tmp_path))
    for _ in range(4):
        log.append(event())
    whole, part = export_log(log), export_log(log, 1, 3)
    assert part["entries"] == whole["entries"][1:3]
    assert part["checkpoint"] == whole["checkpoint"]
