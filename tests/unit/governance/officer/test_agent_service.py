"""The agent's endpoint: what it shows, and where it may listen."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import generate_latest

from governance.officer.agent import Agent, AgentStatus
from governance.officer.agent_service import run_agent, shown
from governance.officer.errors import OfficerFault
from keys.clock import utc_now
from keys.errors import KeyFault


@dataclass
class StillAgent:
    status: AgentStatus


def status_of(**changes: Any) -> AgentStatus:
    return AgentStatus(due=utc_now(), **changes)


def metrics(status: AgentStatus) -> str:
    report = shown(cast("Agent", StillAgent(status)))
    return generate_latest(report.metrics).decode()


def test_metrics_show_until_when_the_documents_are_valid() -> None:
    ends = utc_now() + timedelta(days=6)
    text = metrics(status_of(expires=ends))
    line = next(line for line in text.splitlines() if line.startswith("pratique_country_documents"))
    assert float(line.split()[-1]) == pytest.approx(ends.timestamp())


def test_documents_that_were_never_signed_show_zero() -> None:
    assert "pratique_country_documents_expire_timestamp_seconds 0.0" in metrics(status_of())


def test_failures_are_counted() -> None:
    assert "pratique_agent_failures 3.0" in metrics(status_of(failures=3))


@pytest.mark.parametrize(("left", "good"), [(timedelta(days=6), True), (timedelta(hours=1), False)])
def test_it_is_ready_while_the_documents_are_valid_for_long_enough(
    left: timedelta, good: bool
) -> None:
    status = status_of(expires=utc_now() + left, failures=2)
    finding = shown(cast("Agent", StillAgent(status))).ready()["documents"]
    assert (finding.good, finding.says) == (good, status.sentence())


@pytest.mark.parametrize("address", ["0.0.0.0:9103", "localhost:9103", "127.0.0.1"])
def test_it_shows_nothing_to_other_machines(tmp_path: Path, address: str) -> None:
    with pytest.raises(OfficerFault, match="--observe cannot be"):
        run_agent(tmp_path, b"", observe=address, log_file=tmp_path / "log")


def test_it_does_not_start_with_a_folder_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises((OfficerFault, KeyFault)):
        run_agent(tmp_path / "none", b"wrong", observe=None, log_file=tmp_path / "log")
