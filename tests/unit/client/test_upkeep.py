"""Work between messages: each part is done although another one fails."""

import logging
from dataclasses import replace
from unittest.mock import Mock

import pytest

from client.errors import NodeFault, RecordFault
from client.parts import NodeParts
from client.upkeep import Upkeep
from governance.documents.study import Study
from governance.errors import DocumentFault
from protocols.wire.channel import LinkFault
from tests.support.node_federation import NodeFederation


@pytest.fixture
def parts(federation: NodeFederation) -> NodeParts:
    return federation.nodes["DK"].parts


def recording(parts: NodeParts, **changes: object) -> tuple[NodeParts, list[str]]:
    """Return parts that record the calls to them, in order."""
    done: list[str] = []

    def part(name: str, *methods: str) -> Mock:
        made = Mock(wraps=getattr(parts, name))
        for method in methods:
            getattr(made, method).side_effect = lambda *_, m=f"{name}.{method}", **__: done.append(
                m
            )
        return made

    made = {
        "updates": part("updates", "collect", "sync"),
        "record_store": part("record_store", "refresh"),
        "decisions": part("decisions", "settle"),
        "run_expiry": part("run_expiry", "end_forbidden", "end_silent"),
        "log_head": part("log_head", "move"),
        "keys": part("keys", "forget_former"),
        "tasks": part("tasks", "forget_former_records", "prepared"),
    }
    return replace(parts, **made | changes), done  # type: ignore[arg-type]


def test_upkeep_collects_reads_tidies_fetches_and_prepares_in_this_order(
    parts: NodeParts, study: Study
) -> None:
    watched, done = recording(parts)
    Upkeep(watched).do_upkeep()
    assert done == [
        "updates.collect",
        "record_store.refresh",
        "tasks.forget_former_records",
        "decisions.settle",
        "run_expiry.end_forbidden",
        "run_expiry.end_silent",
        "log_head.move",
        "keys.forget_former",
        "updates.sync",
        "tasks.prepared",
    ]
    watched.tasks.prepared.assert_called_once_with(study)  # type: ignore[attr-defined]


def test_a_failed_part_does_not_prevent_the_others(
    parts: NodeParts, caplog: pytest.LogCaptureFixture
) -> None:
    watched, done = recording(parts)
    watched.decisions.settle.side_effect = NodeFault("The log is full")  # type: ignore[attr-defined]
    Upkeep(watched).do_upkeep()
    assert "updates.sync" in done
    assert "log_head.move" in done
    assert "state not tidied" in caplog.messages


@pytest.mark.parametrize("fault", [LinkFault("No answer"), DocumentFault("They do not verify")])
def test_documents_that_cannot_be_fetched_are_a_warning(
    parts: NodeParts, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    watched, done = recording(parts)
    watched.updates.sync.side_effect = fault  # type: ignore[attr-defined]
    Upkeep(watched).do_upkeep()
    assert "tasks.prepared" not in done
    assert [one.levelno for one in caplog.records if one.message == "documents not synced"] == [
        logging.WARNING
    ]


def test_the_text_of_a_record_fault_is_not_logged(
    parts: NodeParts, caplog: pytest.LogCaptureFixture
) -> None:
    watched, _ = recording(parts)
    watched.tasks.prepared.side_effect = RecordFault("Line 7 holds 'Jensen'")  # type: ignore[attr-defined]
    Upkeep(watched).do_upkeep()
    assert "Jensen" not in caplog.text


def test_a_node_without_a_federation_fetches_nothing(parts: NodeParts) -> None:
    settings = parts.settings.model_copy(update={"enrolment": None})
    watched, done = recording(parts, settings=settings)
    Upkeep(watched).do_upkeep()
    assert "updates.sync" not in done


def test_a_study_that_is_not_permitted_is_not_prepared(
    federation: NodeFederation, study: Study
) -> None:
    federation.withdraw("DK", study)
    watched, done = recording(federation.nodes["DK"].parts)
    Upkeep(watched).prepare()
    assert done == []


def test_preparing_before_the_first_message_ends_quietly_on_a_fault(parts: NodeParts) -> None:
    watched, _ = recording(parts)
    watched.tasks.prepared.side_effect = RecordFault("None")  # type: ignore[attr-defined]
    Upkeep(watched).prepare()
