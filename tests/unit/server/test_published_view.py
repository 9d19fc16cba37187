"""The published document versions that an attempt reads during its run."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from governance.errors import DocumentFault
from protocols.wire.document_versions import DocumentVersions
from server.errors import CoordinatorFault
from server.flower.carrier import Carrier
from server.home import CoordinatorHome
from server.published_view import read_published_view
from server.runs import attempt as conducting
from server.runs.progress import RunProgress
from tests.support.coordinator_services import Coordinator, LocalRunServices
from tests.support.node_federation import NodeFederation

KNOWN = DocumentVersions(1, 1, {"DK": 1})


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    federation = NodeFederation(tmp_path / "federation")
    yield Coordinator(federation, tmp_path / "coordinator")
    federation.close()


def asked(coordinator: Coordinator) -> DocumentVersions:
    unused = cast("RunProgress", None), cast("Carrier", None)
    attempt = conducting._RunAttempt(
        coordinator.home, "ab" * 16, *unused, LocalRunServices(coordinator)
    )
    return attempt._published(KNOWN)


def test_the_published_versions_are_those_in_the_repository_now(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conducting, "utc_now", coordinator.clock)
    before = asked(coordinator)
    assert before == coordinator.federation.versions
    coordinator.federation.hand_over("DK")
    assert asked(coordinator).countries["DK"] == before.countries["DK"] + 1


def test_without_an_agreement_the_fault_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(CoordinatorFault, match="There is no agreement yet") as caught:
        read_published_view(CoordinatorHome(tmp_path), datetime(2026, 3, 1, tzinfo=UTC))
    assert "`pratique-coordinator agreement propose FILE`" in str(caught.value.fix)


def test_a_fault_in_reading_the_documents_ends_no_run(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents may be half written, or the clock wrong, when a country's reply is checked."""

    def failing(*_: object) -> None:
        raise DocumentFault("The documents do not verify")

    monkeypatch.setattr(conducting, "read_published_view", failing)
    assert asked(coordinator) == KNOWN
