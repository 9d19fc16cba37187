"""A node's next key is used once officer's and published documents name it."""

import json
from typing import Any
from unittest.mock import Mock

import pytest

from client.documents.key_changes import KeyChanges
from client.parts import NodeParts
from governance.audit.events import EventKind
from governance.documents.study import Study
from protocols.errors import ReasonCode, Refusal
from protocols.wire.encoding import digest
from tests.support.documents import node_keys, raw_key
from tests.support.node_federation import NodeFederation


@pytest.fixture
def parts(federation: NodeFederation) -> NodeParts:
    return federation.nodes["DK"].parts


def last_entry(parts: NodeParts) -> dict[str, Any]:
    entry: dict[str, Any] = json.loads(list(parts.log.entries())[-1])
    return entry


def publish(federation: NodeFederation, key: str) -> None:
    """Let the officer sign the node's next key, for the node and for the exchange."""
    named = node_keys("DK").model_copy(update={"identity_key": key})
    federation.documents.folders["DK"].set_node(named)
    federation.nodes["DK"].deliver(federation.documents.sign_and_submit("DK"))


def test_without_a_next_key_no_change_is_pending(parts: NodeParts) -> None:
    assert not parts.keys.pending
    own = parts.updates.own()
    assert own is not None
    parts.keys.use_successor_if_published(own, parts.documents.view(parts.clock()))
    assert not parts.keys.pending


def test_the_next_key_is_used_only_once_the_published_documents_name_it(
    federation: NodeFederation, parts: NodeParts
) -> None:
    following = parts.identities.prepare_successor().public
    publish(federation, following.to_text())
    assert parts.keys.pending
    federation.nodes["DK"].sync()
    assert not parts.keys.pending
    assert parts.identities.current.public == following
    entry = last_entry(parts)
    assert entry["kind"] == "node-key-changed"
    assert entry["body"] == digest(following.to_text().encode())


def test_another_key_in_the_documents_is_not_used(
    federation: NodeFederation, parts: NodeParts
) -> None:
    parts.identities.prepare_successor()
    publish(federation, raw_key(99).public.to_text())
    federation.nodes["DK"].sync()
    assert parts.keys.pending


def test_a_former_key_is_kept_while_a_run_is_signed_with_it(
    federation: NodeFederation, parts: NodeParts, study: Study
) -> None:
    run, former = federation.ready(study), parts.identities.current.public.to_text()
    following = parts.identities.prepare_successor().public
    publish(federation, following.to_text())
    federation.nodes["DK"].sync()
    parts.keys.forget_former()
    assert parts.identities.find(former) is not None
    with parts.engine.begin() as connection:
        parts.runs.end(run.id, federation.clock(), connection)
    parts.keys.forget_former()
    assert parts.identities.find(former) is None


def test_no_key_is_destroyed_while_a_run_cannot_be_read(parts: NodeParts) -> None:
    runs, identities = Mock(), Mock()
    runs.summaries.return_value = [Mock(run="0" * 32)]
    runs.live.side_effect = Refusal(ReasonCode.STALE, "The run's state cannot be read")
    KeyChanges("DK", identities, runs, parts.decisions).forget_former()
    identities.forget_all_but.assert_not_called()


def test_a_key_change_by_the_officer_is_logged_by_the_former_key(parts: NodeParts) -> None:
    former, new = raw_key(5).public, raw_key(6).public
    parts.now()  # reads what the entry's time needs before the transaction begins
    with parts.engine.begin() as connection:
        parts.keys.log_officer_change(former, new, connection)
    entry = last_entry(parts)
    assert (entry["kind"], entry["actor"]) == ("officer-key-changed", former.fingerprint)
    assert entry["body"] == digest(new.to_text().encode())


def test_an_approved_key_is_logged_by_its_digest(parts: NodeParts) -> None:
    parts.keys.log(EventKind.KEY_APPROVED, raw_key(7).public)
    assert last_entry(parts)["body"] == digest(raw_key(7).public.to_text().encode())
