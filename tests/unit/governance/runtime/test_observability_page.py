"""The observability page names all metrics, warnings and errors that exist, and no others."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from prometheus_client import CollectorRegistry

from governance.officer.agent import Agent
from governance.officer.agent_service import shown
from governance.runtime.metrics import CoordinatorMetrics, NodeMetrics

PAGE = Path(__file__).parents[4] / "docs" / "observability.md"
ROOMS = ("client", "server", "governance", "protocols", "keys")


def names(registry: CollectorRegistry) -> set[str]:
    """Return the project's metrics, as Prometheus names them."""
    endings = {"counter": "_total"}
    families = [family for family in registry.collect() if family.name.startswith("pratique")]
    return {family.name + endings.get(family.type, "") for family in families}


def agent_names() -> set[str]:
    """Return the metrics of the officer's agent."""
    status = SimpleNamespace(expires=None, failures=0)
    return names(shown(cast("Agent", SimpleNamespace(status=status))).metrics)


def test_the_page_names_every_metric_and_no_other() -> None:
    node, coordinator = NodeMetrics((), ()), CoordinatorMetrics((), ())
    named = set(re.findall(r"`(pratique_[a-z_]+)`", PAGE.read_text(encoding="utf-8")))
    assert named == names(node.registry) | names(coordinator.registry) | agent_names()


def test_each_metric_is_in_the_table_of_its_daemon() -> None:
    _, *tables = PAGE.read_text(encoding="utf-8").split("| metric of ")
    metrics_of_tables = [
        set(re.findall(r"^\| `(pratique_[a-z_]+)`", table, re.MULTILINE)) for table in tables
    ]
    node = names(NodeMetrics((), ()).registry)
    coordinator = names(CoordinatorMetrics((), ()).registry)
    assert metrics_of_tables == [
        node - coordinator,
        coordinator - node,
        node & coordinator,
        agent_names(),
    ]


def logged_events() -> set[str]:
    """Return the texts that our daemons log as warnings or worse."""
    files = (path for room in ROOMS for path in (PAGE.parents[1] / room).rglob("*.py"))
    calls = re.compile(r'_log\.(?:warning|error|critical|exception)\(\s*"([^"]*)"')
    return {text for path in files for text in calls.findall(path.read_text(encoding="utf-8"))}


def test_the_page_says_what_to_do_about_each_warning_and_error_and_no_other() -> None:
    tables = PAGE.read_text(encoding="utf-8").split("## Metrics and health")[0].splitlines()
    cells = [line.split("|")[1] for line in tables if line.startswith("| `")]
    named = [text for cell in cells for text in re.findall("`([^`]+)`", cell)]
    assert sorted(named) == sorted(logged_events())
