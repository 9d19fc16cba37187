"""A node's time is never earlier than the latest signed time that it has seen."""

from dataclasses import replace
from datetime import timedelta

from tests.support.node_federation import NodeFederation


def test_a_clock_that_was_set_back_does_not_set_back_the_time_of_the_node(
    federation: NodeFederation,
) -> None:
    parts = federation.nodes["DK"].parts
    latest = parts.documents.latest_signed()
    assert latest is not None
    behind, ahead = latest - timedelta(days=400), latest + timedelta(days=1)
    assert replace(parts, clock=lambda: behind).now() == latest
    assert replace(parts, clock=lambda: ahead).now() == ahead
