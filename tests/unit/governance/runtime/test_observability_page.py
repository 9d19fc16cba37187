"""The observability page names all metrics that exist, and no others."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from prometheus_client import CollectorRegistry

from governance.officer.agent import Agent
from governance.officer.agent_service import shown
from governance.runtime.metrics import CoordinatorMetrics, NodeMetrics

PAGE = Path(__file__).parents[4] / "docs" / "observability.md"


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
