"""The daemon's next step for an unfinished run, and which process may execute it."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import CoordinatorFault
from server.home import CoordinatorHome
from server.runs import lock
from server.runs.lock import is_run_locked, lock_run
from server.runs.run_documents import RunDocuments, require_resumable
from server.services.run_supervisor import (
    MAX_FRUITLESS_ATTEMPTS,
    START_SECONDS,
    AttemptState,
    NextStep,
    decide,
)
from tests.support.waiting import wait_until

RUN = "a" * 32
DIGESTS = ["sha256:" + letter * 64 for letter in "ab"]
LONG = timedelta(days=1)

attempts = st.builds(
    AttemptState,
    begun=st.booleans(),
    alive=st.booleans(),
    lost=st.booleans(),
    fruitless=st.integers(0, 10),
    silent=st.timedeltas(timedelta(0), LONG),
)


def attempt(**changes: object) -> AttemptState:
    fields = {"begun": True, "alive": True, "lost": False, "fruitless": 1, "silent": LONG}
    return AttemptState(**fields | changes)  # type: ignore[arg-type]


def test_a_run_with_a_live_process_is_waited_for_however_long_it_takes() -> None:
    assert decide(attempt()) is NextStep.WAIT
    assert decide(attempt(lost=True)) is NextStep.WAIT


def test_a_run_whose_process_ended_is_retried_at_once() -> None:
    assert decide(attempt(alive=False, silent=timedelta(0))) is NextStep.RETRY


@pytest.mark.parametrize("fruitless", [1, 2, 3])
def test_each_further_attempt_has_longer_to_begin(fruitless: int) -> None:
    patience = timedelta(seconds=START_SECONDS * fruitless)
    waiting = attempt(begun=False, alive=False, fruitless=fruitless, silent=patience / 2)
    assert decide(waiting) is NextStep.WAIT
    over = attempt(begun=False, alive=False, fruitless=fruitless, silent=patience)
    assert decide(over) is NextStep.RETRY


def test_an_attempt_submitted_to_a_former_superlink_is_not_waited_for() -> None:
    run = attempt(begun=False, alive=False, lost=True, silent=timedelta(0))
    assert decide(run) is NextStep.RETRY


@given(attempts)
def test_a_run_with_too_many_fruitless_attempts_is_abandoned(run: AttemptState) -> None:
    if run.fruitless >= MAX_FRUITLESS_ATTEMPTS:
        assert decide(run) is not NextStep.RETRY
    else:
        assert decide(run) is not NextStep.ABANDON


@given(attempts)
def test_a_run_with_a_live_process_is_neither_retried_nor_abandoned(run: AttemptState) -> None:
    if run.begun and run.alive:
        assert decide(run) is NextStep.WAIT


# The lock.


@pytest.fixture
def home(tmp_path: Path) -> CoordinatorHome:
    return CoordinatorHome(tmp_path)


def test_two_processes_never_execute_one_run(
    home: CoordinatorHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.1)
    assert not is_run_locked(home, RUN)
    with lock_run(home, RUN):
        assert is_run_locked(home, RUN)
        assert not is_run_locked(home, "b" * 32)
        with pytest.raises(CoordinatorFault, match="Another process"), lock_run(home, RUN):
            pytest.fail("two processes executed it")
    assert not is_run_locked(home, RUN)


def test_a_killed_process_releases_the_lock_and_its_successor_begins(home: CoordinatorHome) -> None:
    code = (
        "import sys, time; from pathlib import Path; from server.home import CoordinatorHome; "
        "from server.runs.lock import lock_run\n"
        "with lock_run(CoordinatorHome(Path(sys.argv[1])), sys.argv[2]):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(home.path), RUN],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[4],
    ) as carrier:
        assert carrier.stdout is not None
        assert carrier.stdout.readline() == b"held\n"
        assert is_run_locked(home, RUN)
        os.kill(carrier.pid, signal.SIGKILL)
        carrier.wait()
        wait_until(lambda: not is_run_locked(home, RUN))
        with lock_run(home, RUN):
            pass


# The documents that a run is based on.


def ground(**changes: object) -> RunDocuments:
    fields = {
        "agreement": DIGESTS[0],
        "identities": {"AT": "a", "BE": "b"},
        "root": 1,
        "targets": 2,
        "countries": {"AT": 3},
    }
    return RunDocuments.model_validate(fields | changes)


def test_newer_documents_alone_do_not_end_a_run() -> None:
    require_resumable(ground(), ground(root=9, targets=9, countries={"AT": 9, "BE": 1}))


def test_new_keys_of_a_node_do_not_end_a_run_that_began_with_the_former_keys() -> None:
    require_resumable(ground(), ground(identities={"AT": "a", "BE": "x"}))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"agreement": DIGESTS[1]}, "the agreement was amended"),
        ({"identities": {"AT": "a"}}, "no longer contain keys of the node of BE"),
    ],
)
def test_a_run_ends_if_its_documents_are_no_longer_valid(
    changes: dict[str, object], why: str
) -> None:
    with pytest.raises(CoordinatorFault, match="cannot be resumed") as caught:
        require_resumable(ground(), ground(**changes))
    assert why in caught.value.why
    assert "charged again" in caught.value.fix


def test_stored_documents_are_read_back_and_claimed_by_every_request() -> None:
    documents = ground()
    assert RunDocuments.model_validate(documents.model_dump(mode="json")) == documents
    assert (documents.document_versions.root, documents.document_versions.countries) == (
        1,
        {"AT": 3},
    )
