"""A node's time is never earlier than the latest signed time that it has seen."""

from dataclasses import replace
from datetime import timedelta

from tests.support.node_federation import NodeFederation


def test_a_clock_that_was_set_back_does_not_turn_time_back(federation: NodeFederation) -> None:
    parts = federation.nodes["DK"].parts
    latest = parts.documents.latest_signed()
    assert latest is not None
    behind = replace(parts, clock=lambda: latest - timedelta(days=400))
    assert behind.now() == latest


def test_a_clock_that_is_ahead_counts(federation: NodeFederation) -> None:
    parts = federation.nodes["DK"].parts
    later = federation.clock() + timedelta(days=1)
    assert replace(parts, clock=lambda: later).now() == later
