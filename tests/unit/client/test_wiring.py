"""A node's parts are made once and shared, and what comes from outside reaches the border."""

from collections.abc import Iterator

import pytest

from client.node import Node
from client.settings import NodeSettings
from tests.support.node_federation import NodeFederation
from tests.support.zero_noise import CountedZeroNoise


def fixed(size: int) -> bytes:
    return bytes(size)


NOISE = CountedZeroNoise()


@pytest.fixture(scope="module")
def node(template: NodeFederation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One node, which no test here changes."""
    federation = template.copied(tmp_path_factory.mktemp("wiring") / "federation")
    yield federation.restart("DK", noise=NOISE, entropy=fixed)
    federation.close()


def test_every_part_is_over_the_one_state_database(node: Node) -> None:
    handler, engine = node._request_handler, node.parts.engine
    assert handler._door._charges._engine is handler._floor._engine is engine
    assert handler._outbox._engine is engine
    assert node.parts.journal._engine is engine
    assert node.parts.log._engine is engine


def test_ledger_log_and_tasks_are_shared(node: Node) -> None:
    handler, parts = node._request_handler, node.parts
    charges = handler._door._charges
    assert charges is handler._floor._charges
    assert charges._ledger is handler._gate._ledger is parts.ledger
    assert charges._decisions is handler._outbox._decisions is parts.decisions
    assert handler._door._tasks is handler._floor._tasks is parts.tasks


def test_replies_leave_through_one_outbox_with_one_recheck(node: Node) -> None:
    handler = node._request_handler
    assert handler._door._outbox is handler._outbox
    assert handler._floor._recheck is handler._outbox._recheck


def test_noise_and_randomness_are_those_passed_in(node: Node) -> None:
    handler = node._request_handler
    assert handler._door._noise is handler._floor._noise is NOISE
    assert handler._door._entropy is handler._floor._entropy is fixed


def test_the_gate_fetches_documents_by_the_updates_of_its_node(node: Node) -> None:
    assert node._request_handler._gate._sync == node.parts.updates.sync


def test_no_setting_names_noise_budget_or_policy() -> None:
    for field in NodeSettings.model_fields:
        assert not any(word in field for word in ("noise", "budget", "policy", "epsilon", "seed"))
