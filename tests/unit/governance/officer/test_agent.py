"""The officer's agent: what it does repeatedly, and what it never does."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.officer import agent as module
from governance.officer.agent import (
    EARLIEST,
    FIRST_PAUSE,
    LATEST,
    LONGEST_PAUSE,
    LONGEST_WAIT,
    MIN_LIFE,
    Agent,
    AgentStatus,
    pause_after,
)
from governance.officer.agent_service import LOCK, run_agent, shown
from governance.officer.errors import OfficerFault
from governance.officer.home import Identity
from governance.officer.session import OfficerSession
from governance.officer.terminal import Terminal
from governance.trust.layout import COUNTRY_LIFE
from keys.errors import KeyFault
from tests.support.documents import DAY, NOW, node_keys, study
from tests.support.officers import PASSPHRASE, OfficerCommands, bundle_version


@pytest.fixture
def settled(agreed: OfficerCommands) -> OfficerCommands:
    agreed.done("sign", agreed.file("node-keys.json", node_keys("DK").canonical()), "--yes")
    return agreed


def midpoint(low: float, high: float) -> float:
    return (low + high) / 2


def agent_of(officer: OfficerCommands, jitter: module.Jitter = midpoint) -> Agent:
    def open_session() -> OfficerSession:
        return OfficerSession.open(
            officer.home,
            PASSPHRASE.encode(),
            Terminal(quiet=True),
            lambda: officer.now,
            lambda *_, **__: officer.exchange,
        )

    return Agent(open_session, lambda: officer.now, jitter)


def pass_time(officer: OfficerCommands, by: timedelta) -> None:
    officer.now += by
    officer.documents.now = officer.now
    officer.documents.refresh()


def versions(officer: OfficerCommands) -> list[int]:
    return [bundle_version(content) for kind, content in officer.exchange.submitted if kind == 1]


class TestADay:
    def test_documents_are_signed_again_about_once_a_day(self, settled: OfficerCommands) -> None:
        agent, before = agent_of(settled), len(versions(settled))
        for _ in range(12 * 20):
            agent.look()
            pass_time(settled, timedelta(hours=2))
        assert 17 <= len(versions(settled)) - before <= 27
        assert settled.documents.view().country("DK") is not None

    def test_a_restarted_agent_does_not_sign_fresh_documents_again(
        self, settled: OfficerCommands
    ) -> None:
        before = versions(settled)
        for _ in range(5):
            agent_of(settled).look()
        assert versions(settled) == before

    def test_the_status_states_when_the_next_renewal_is(self, settled: OfficerCommands) -> None:
        agent = agent_of(settled)
        agent.look()
        sentence = agent.status.sentence()
        assert (
            sentence == "documents until 2026-09-08 12:00 UTC; next renewal at 2026-09-02 10:00 UTC"
        )

    @given(st.floats(0, 1))
    def test_the_next_renewal_is_at_a_random_time_within_limits(self, fraction: float) -> None:
        documents = type("Documents", (), {"signed_at": NOW})()
        due = module.next_due(documents, lambda low, high: low + (high - low) * fraction)
        assert NOW + EARLIEST <= due <= NOW + LATEST < NOW + COUNTRY_LIFE - MIN_LIFE

    def test_a_pending_new_key_signs_the_documents_too(self, settled: OfficerCommands) -> None:
        settled.done("rotate", "--yes")
        pass_time(settled, 2 * DAY)
        agent_of(settled).look()
        first, second = versions(settled)[-2:]
        assert second == first + 1

    def test_a_new_key_in_force_is_used(self, settled: OfficerCommands) -> None:
        settled.done("rotate", "--yes")
        documents, agent = settled.documents, agent_of(settled)
        agent.look()
        documents.store.draft_renewal(documents.now)
        documents.sign("EE", "NO", "PT")
        documents.publish()
        pass_time(settled, 2 * DAY)
        agent.look()
        identity = Identity.open(settled.home, settled.home.settings(), PASSPHRASE.encode())
        assert identity.next_key is None
        assert settled.documents.view().countries["DK"].key == identity.key.public.to_text()


class TestNever:
    def test_the_agent_decides_nothing(self, settled: OfficerCommands) -> None:
        """A draft, a study and a stranger's node keys wait; a month later they still wait."""
        documents = settled.documents
        proposed = study(documents.agreed)
        documents.propose(proposed)
        documents.store.draft(
            documents.agreed.model_copy(update={"title": "Another"}), documents.now
        )
        agent, before = agent_of(settled), settled.own()
        assert before is not None
        for _ in range(30):
            pass_time(settled, DAY)
            agent.look()
        own = settled.own()
        assert own is not None
        assert (own.permits, own.withdrawals, own.node) == ({}, {}, before.node)
        assert {kind for kind, _ in settled.exchange.submitted[2:]} == {1}
        status = documents.store.draft_status()
        assert status is not None
        assert status.signed == ()

    def test_the_agent_signs_nothing_before_the_officer_has_signed_something(
        self, agreed: OfficerCommands
    ) -> None:
        agent = agent_of(agreed)
        agent.look()
        assert "nothing to renew" in agent.status.fault
        assert versions(agreed) == []


class TestALostLink:
    def test_a_failed_renewal_is_tried_again_with_growing_pauses(
        self, settled: OfficerCommands
    ) -> None:
        agent = agent_of(settled)
        pass_time(settled, 2 * DAY)
        settled.exchange.submit_down = True
        pauses = []
        for _ in range(12):
            agent.look()
            pauses.append(agent.status.due - settled.now)
            settled.now = agent.status.due
        assert pauses == sorted(pauses)
        assert pauses[0] < FIRST_PAUSE
        assert LONGEST_PAUSE / 2 <= pauses[-1] <= LONGEST_PAUSE
        assert agent.status.failures == 12

    def test_repeated_attempts_submit_the_same_version(self, settled: OfficerCommands) -> None:
        """Documents that are already signed are submitted again until they are a day old."""
        agent = agent_of(settled)
        pass_time(settled, 2 * DAY)
        settled.exchange.submit_down = True
        for _ in range(10):
            agent.look()
            settled.now = agent.status.due
        own = settled.own()
        assert own is not None
        assert own.version == 2
        settled.exchange.submit_down = False
        agent.look()
        assert versions(settled)[-1] == 2
        assert (agent.status.failures, agent.status.fault) == (0, "")

    def test_after_three_days_without_the_exchange_renewal_continues(
        self, settled: OfficerCommands
    ) -> None:
        agent = agent_of(settled)
        settled.exchange.down = True
        for _ in range(24 * 3):
            agent.look()
            settled.now += timedelta(hours=1)
        settled.exchange.down = False
        pass_time(settled, timedelta(hours=1))
        agent.look()
        documents = settled.documents.view().country("DK")
        assert documents is not None
        assert documents.expires - settled.now > 6 * DAY

    def test_the_agent_is_not_ready_when_the_documents_soon_expire(
        self, settled: OfficerCommands
    ) -> None:
        agent = agent_of(settled)
        agent.look()
        assert agent.status.well(settled.now + 4 * DAY)
        assert not agent.status.well(settled.now + 6 * DAY)
        assert not AgentStatus(due=NOW).well(NOW)

    @given(st.integers(1, 10_000), st.floats(0.5, 1))
    def test_pauses_between_attempts_are_bounded(self, failures: int, part: float) -> None:
        pause = pause_after(failures, lambda low, high: part)
        assert FIRST_PAUSE / 2 <= pause <= LONGEST_PAUSE


class TestRunning:
    def test_the_agent_ends_on_request(self, settled: OfficerCommands) -> None:
        stop, agent = threading.Event(), agent_of(settled)
        thread = threading.Thread(target=agent.run, args=(stop,))
        thread.start()
        stop.set()
        thread.join(20)
        assert not thread.is_alive()

    def test_a_wrong_passphrase_is_reported_at_once(self, settled: OfficerCommands) -> None:
        with pytest.raises(KeyFault):
            run_agent(settled.home.path, b"wrong", observe=None, log_file=None)

    def test_a_second_agent_of_a_folder_is_refused(self, settled: OfficerCommands) -> None:
        with (settled.home.path / LOCK).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with pytest.raises(OfficerFault, match="An agent of this folder is running"):
                run_agent(settled.home.path, PASSPHRASE.encode(), observe=None, log_file=None)

    @pytest.mark.parametrize("address", ["0.0.0.0:9103", "exchange:1", "127.0.0.1:0", "[::]:9103"])
    def test_the_agent_shows_metrics_on_this_machine_only(
        self, settled: OfficerCommands, address: str
    ) -> None:
        with pytest.raises(OfficerFault, match="only a loopback address is allowed"):
            run_agent(settled.home.path, PASSPHRASE.encode(), observe=address, log_file=None)

    def test_the_agent_shows_until_when_documents_are_valid(self, settled: OfficerCommands) -> None:
        agent = agent_of(settled)
        agent.look()
        report = shown(agent)
        name = "pratique_country_documents_expire_timestamp_seconds"
        own = settled.own()
        assert own is not None
        assert report.metrics.get_sample_value(name) == own.expires.timestamp()
        assert report.metrics.get_sample_value("pratique_agent_failures") == 0
        assert "documents until" in report.ready()["documents"].says

    @pytest.mark.slow
    def test_the_agent_process_notifies_systemd_and_ends_on_a_signal(
        self, settled: OfficerCommands, tmp_path: Path
    ) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(tmp_path / "notify"))
            manager.settimeout(60)
            program = Path(sys.executable).with_name("pratique-officer")
            secret: list[str | Path] = ["--passphrase-file", settled.passphrase_file]
            process = subprocess.Popen(
                [program, "agent", "--home", settled.home.path, *secret],
                env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
                stderr=subprocess.DEVNULL,
            )
            try:
                assert manager.recv(4096).startswith(b"READY=1")
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 0
            finally:
                process.kill()
                process.wait()


class Night(threading.Event):
    """An event that records each wait, and is set after three."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        if len(self.waits) == 3:
            self.set()
        return self.is_set()


def test_it_loops_at_least_every_ten_minutes_for_the_watchdog() -> None:
    turns, stop = [0], Night()

    def turned() -> None:
        turns[0] += 1

    agent = Agent(pytest.fail, lambda: NOW, midpoint, turned=turned)
    agent.status = AgentStatus(due=NOW + timedelta(days=1))
    agent.run(stop)
    assert turns == [3]
    assert stop.waits == [LONGEST_WAIT.total_seconds()] * 3
