"""One process at a time executes a run, and its lock ends with the process."""

from pathlib import Path

import pytest

from server.errors import CoordinatorFault
from server.home import CoordinatorHome
from server.runs import lock
from server.runs.lock import is_run_locked, lock_run

RUN, OTHER = "1" * 32, "2" * 32


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CoordinatorHome:
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.05)
    return CoordinatorHome(tmp_path)


def test_a_run_is_locked_while_a_process_holds_its_lock(home: CoordinatorHome) -> None:
    assert not is_run_locked(home, RUN)
    with lock_run(home, RUN):
        assert is_run_locked(home, RUN)
        assert not is_run_locked(home, OTHER)
    assert not is_run_locked(home, RUN)


def test_a_second_process_waits_and_is_refused(home: CoordinatorHome) -> None:
    with lock_run(home, RUN):
        with (
            pytest.raises(CoordinatorFault, match="Another process executes"),
            lock_run(home, RUN),
        ):
            pytest.fail("two processes execute one run")
        assert is_run_locked(home, RUN)


def test_a_fault_during_the_run_releases_the_lock(home: CoordinatorHome) -> None:
    with pytest.raises(ValueError, match="ended"), lock_run(home, RUN):
        raise ValueError("ended")
    with lock_run(home, RUN):
        assert is_run_locked(home, RUN)
