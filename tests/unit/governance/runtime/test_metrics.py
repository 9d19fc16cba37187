"""Metrics: each has a help text, each label comes from a list, and their number is bounded."""

import re
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from client.border.reply_timing import SLOT_SECONDS
from governance.runtime.metrics import (
    MAX_ROWS,
    REPLY_SLOTS,
    CoordinatorMetrics,
    NodeMetrics,
    Table,
)

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
FORBIDDEN = re.compile(r"cohort|sample|patient|record|rows|memory|cpu", re.IGNORECASE)
"""What no metric of a node may be about."""


@pytest.fixture
def node() -> NodeMetrics:
    metrics = NodeMetrics(("bundle", "contribute"), ("declined", "budget"))
    metrics.link(up=True)
    metrics.count_reply("contribute", None, 0.31)
    metrics.count_reply("bundle", "declined", 0.05)
    metrics.ledger({"national": 0.25})
    metrics.documents({"root": 2, "DK": 7}, {"agreement": NOON, "certificate": NOON})
    metrics.log_size(12)
    metrics.set_last_upkeep(NOON)
    return metrics


@pytest.fixture
def coordinator() -> CoordinatorMetrics:
    metrics = CoordinatorMetrics(("Relay", "Fetch"), ("UNAUTHENTICATED",))
    metrics.nodes({"DK": True, "PL": False}, {"PL"})
    metrics.runs({"running": 1})
    metrics.restarts({"superlink": 2})
    metrics.round_over("opened", 0.7)
    metrics.count_refused_call("Relay", "UNAUTHENTICATED")
    return metrics


def samples(registry: CollectorRegistry) -> dict[str, float]:
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        f"{sample.name}{sorted(sample.labels.items()) if sample.labels else ''}": sample.value
        for family in families
        for sample in family.samples
    }


def test_a_node_shows_the_values_that_were_set(node: NodeMetrics) -> None:
    values = samples(node.registry)
    assert values["pratique_node_link_up"] == 1
    answered = "pratique_node_messages_total[('outcome', '{}'), ('phase', '{}')]"
    assert values[answered.format("answered", "contribute")] == 1
    assert values[answered.format("declined", "bundle")] == 1
    assert values["pratique_node_refusals_total[('code', 'declined')]"] == 1
    assert values["pratique_node_refusals_total[('code', 'budget')]"] == 0
    assert values["pratique_node_ledger_spent_ratio[('register', 'national')]"] == 0.25
    assert values["pratique_node_ledger_left_ratio[('register', 'national')]"] == 0.75
    assert values["pratique_document_version[('document', 'DK')]"] == 7
    assert values["pratique_expires_timestamp_seconds[('what', 'agreement')]"] == NOON.timestamp()
    assert values["pratique_audit_log_entries"] == 12
    assert values["pratique_node_last_tend_timestamp_seconds"] == NOON.timestamp()


def test_a_coordinator_shows_the_values_that_were_set(coordinator: CoordinatorMetrics) -> None:
    values = samples(coordinator.registry)
    assert values["pratique_coordinator_node_online[('country', 'DK')]"] == 1
    assert values["pratique_coordinator_node_online[('country', 'PL')]"] == 0
    assert values["pratique_coordinator_node_disputed[('country', 'DK')]"] == 0
    assert values["pratique_coordinator_node_disputed[('country', 'PL')]"] == 1
    assert values["pratique_coordinator_runs[('state', 'running')]"] == 1
    assert values["pratique_coordinator_flower_restarts[('process', 'superlink')]"] == 2
    assert values["pratique_coordinator_rounds_total[('outcome', 'opened')]"] == 1
    refused = "[('call', 'Relay'), ('reason', 'UNAUTHENTICATED')]"
    assert values[f"pratique_coordinator_refused_calls_total{refused}"] == 1


def test_every_metric_has_a_help_and_a_type(
    node: NodeMetrics, coordinator: CoordinatorMetrics
) -> None:
    for registry in (node.registry, coordinator.registry):
        for family in text_string_to_metric_families(generate_latest(registry).decode()):
            assert family.documentation, family.name
            assert family.type in ("gauge", "counter", "histogram"), family.name


def test_a_node_s_metrics_do_not_depend_on_records(node: NodeMetrics) -> None:
    for name in samples(node.registry):
        assert not FORBIDDEN.search(name), name


def test_replies_are_counted_by_the_slots_at_which_they_leave() -> None:
    assert REPLY_SLOTS[0] == SLOT_SECONDS
    assert all(b == 2 * a for a, b in pairwise(REPLY_SLOTS))


def test_outside_values_make_no_new_label(
    node: NodeMetrics, coordinator: CoordinatorMetrics
) -> None:
    node.count_reply("other", "other", 1)
    coordinator.count_refused_call("other", "other")
    coordinator.round_over("other", 1)
    before = len(samples(node.registry)), len(samples(coordinator.registry))
    for number in range(500):
        node.count_reply(f"phase-{number}", f"code-{number}", 1)
        coordinator.count_refused_call(f"call-{number}", f"reason-{number}")
        coordinator.round_over(f"outcome-{number}", 1)
    assert (len(samples(node.registry)), len(samples(coordinator.registry))) == before


def test_a_table_of_metrics_is_bounded_and_keeps_no_old_row() -> None:
    registry = CollectorRegistry()
    table = Table(registry, "pratique_test", "For the test.", "name")
    table.set({(f"{number:05d}",): 1 for number in range(5000)})
    assert len(samples(registry)) == MAX_ROWS
    table.set({("one",): 1})
    assert list(samples(registry)) == ["pratique_test[('name', 'one')]"]


def test_a_label_cannot_forge_a_line(node: NodeMetrics) -> None:
    node.documents({'a"} 1\npratique_forged 1\n': 1}, {})
    assert "pratique_forged" not in samples(node.registry)


def test_two_daemons_in_one_process_share_nothing(node: NodeMetrics) -> None:
    other = NodeMetrics(("bundle",), ("declined",))
    assert samples(other.registry)["pratique_node_link_up"] == 0


def test_an_overspent_ledger_shows_zero_left_and_not_a_negative_number(node: NodeMetrics) -> None:
    node.ledger({"national": 1.5})
    values = samples(node.registry)
    assert values["pratique_node_ledger_left_ratio[('register', 'national')]"] == 0
