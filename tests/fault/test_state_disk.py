"""Make system calls of the state database fail: the error is clear, and nothing is half done."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from governance.audit.checkpoint import open_checkpoint
from governance.audit.verify import verify_export
from governance.budget.ledger import Ledger
from governance.errors import LogFault, StorageFault
from tests.support.ledger_and_log import (
    NOW,
    STUDY,
    audit_log,
    event,
    node_state,
    release,
    run_id,
    terms,
)

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]
SCRIPT = """
import json, sys
from pathlib import Path
from governance.errors import StorageFault
from governance.budget.ledger import Ledger
from tests.support.ledger_and_log import *

said, done = "", 0
try:
    engine = node_state(Path(sys.argv[1]))
    for number in range(10):
        with engine.begin() as connection:
            Ledger(engine).reserve(terms(10**9), study=STUDY, run=run_id(number),
                mechanisms=[release()], now=NOW, connection=connection)
            audit_log(engine).append(event(number), connection)
        done += 1
except StorageFault as fault:
    said = str(fault)
print(json.dumps([done, said]))
"""


def run(folder: Path, injection: str) -> tuple[int, str]:
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={injection}"]
    finished = subprocess.run(
        [*command, sys.executable, "-c", SCRIPT, str(folder)],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    done, error = json.loads(finished.stdout)
    return done, error


@pytest.mark.parametrize("when", [1, 2, 3, 4, 6, 9, 12])
def test_a_failing_fsync_is_reported_and_loses_nothing_acknowledged(
    tmp_path: Path, when: int
) -> None:
    done, message = run(tmp_path, f"fdatasync,fsync:error=EIO:when={when}")
    assert done == 10 or "disk" in message
    verify_at_least(tmp_path, done)


@pytest.mark.parametrize("when", [5, 40, 80, 90, 100, 120])
def test_a_full_disk_is_reported_and_loses_nothing_acknowledged(tmp_path: Path, when: int) -> None:
    done, message = run(tmp_path, f"pwrite64:error=ENOSPC:when={when}+")
    assert done < 10
    assert "disk" in message
    verify_at_least(tmp_path, done)


def verify_at_least(folder: Path, done: int) -> None:
    engine = node_state(folder)
    log = audit_log(engine)
    charged = {entry.run for entry in Ledger(engine).entries()}
    assert len(charged) == log.size() >= done
    assert charged == {run_id(number) for number in range(len(charged))}
    Ledger(engine).reserve(
        terms(10**9), study=STUDY, run=run_id(99), mechanisms=[release()], now=NOW
    )
    log.append(event(99))
    assert verify_export(log.export(), log.checkpoint(), log.verifier).size == len(charged) + 1


def test_a_flipped_byte_in_the_database_file_is_found_or_changes_no_verified_entry(
    tmp_path: Path,
) -> None:
    engine = node_state(tmp_path / "whole")
    log = audit_log(engine)
    for number in range(12):
        log.append(event(number))
    note, lines = log.checkpoint(), list(log.export())
    engine.dispose()
    data = (tmp_path / "whole" / "state.db").read_bytes()
    reported = 0
    for offset in range(0, len(data), 211):
        changed = bytearray(data)
        changed[offset] ^= 1 << offset % 8
        file = tmp_path / str(offset) / "state.db"
        file.parent.mkdir()
        file.touch(0o600)
        file.write_bytes(changed)
        reported += flip_reported(file.parent, note, lines)
    assert reported > 20


def flip_reported(folder: Path, note: bytes, lines: list[bytes]) -> bool:
    """Return True if the flip was reported; otherwise require that verified data is unchanged."""
    try:
        engine = node_state(folder)
    except StorageFault:
        return True
    log = audit_log(engine)
    try:
        log.require_head(open_checkpoint(note, log.verifier))
        exported = list(log.export())
        verify_export(exported, note, log.verifier)
    except (LogFault, StorageFault):
        return True
    finally:
        engine.dispose()
    assert exported == lines
    return False
