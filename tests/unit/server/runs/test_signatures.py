"""An agreement that asks for ML-DSA-65 beside Ed25519, through the coordinator's services."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.results.result import RESULT_FILE
from keys.composite import Suite
from keys.errors import PratiqueError
from server.runs.attempt import run_attempt
from tests.support.coordinator_services import Coordinator, LocalRunServices, NodesCarrier
from tests.support.documents import BOTH, NOW, node_keys, two_algorithm_key
from tests.support.node_federation import NodeFederation

BOTH_HOLD = "Ed25519 and ML-DSA-65, both of which must be valid"


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    federation = NodeFederation(tmp_path / "federation", changes=BOTH)
    yield Coordinator(federation, tmp_path / "coordinator")
    federation.close()


@pytest.fixture
def study(coordinator: Coordinator) -> Study:
    return coordinator.federation.approved()


def only_ed25519(coordinator: Coordinator, country: str) -> None:
    coordinator.federation.documents.folders[country].set_node(node_keys(country))
    coordinator.federation.hand_over(country)


@pytest.fixture
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.runs.attempt.utc_now", lambda: NOW)


@pytest.mark.usefixtures("_clock")
def test_a_study_is_launched_and_released(coordinator: Coordinator, study: Study) -> None:
    run = coordinator.ask("study_launch", name=study.id)["run"]
    services = LocalRunServices(coordinator)
    run_attempt(coordinator.home, run, 1, NodesCarrier(coordinator.federation), services, seconds=1)
    assert (coordinator.home.results / study.id / RESULT_FILE).exists()


@pytest.mark.parametrize("suite", Suite)
def test_the_daemon_signs_in_the_requested_suite(coordinator: Coordinator, suite: Suite) -> None:
    signature = LocalRunServices(coordinator).sign(b"m" * 32, suite)
    suite.public(two_algorithm_key(1).public).verify(signature, b"m" * 32)


def test_an_unknown_suite_is_refused(coordinator: Coordinator) -> None:
    text = base64.b64encode(bytes(32)).decode()
    with pytest.raises((PratiqueError, ValueError)):
        coordinator.ask("sign", message=text, suite="mldsa65")


def test_no_run_is_launched_while_a_node_cannot_sign(
    coordinator: Coordinator, study: Study
) -> None:
    only_ed25519(coordinator, "NO")
    with pytest.raises(DocumentFault, match="node of NO signs with Ed25519 only") as fault:
        coordinator.ask("study_launch", name=study.id)
    assert "rotate-keys" in fault.value.fix
    assert coordinator.context.runs.all() == []


@pytest.mark.usefixtures("_clock")
def test_a_run_with_a_node_that_can_no_longer_sign_ends_with_the_reason(
    coordinator: Coordinator, study: Study
) -> None:
    run = coordinator.ask("study_launch", name=study.id)["run"]
    only_ed25519(coordinator, "NO")
    carrier, services = NodesCarrier(coordinator.federation), LocalRunServices(coordinator)
    with pytest.raises(DocumentFault):
        run_attempt(coordinator.home, run, 1, carrier, services, seconds=1)
    assert "Ed25519 only" in coordinator.context.runs.get(run).reason


def test_the_status_of_the_agreement_says_how_messages_are_signed(coordinator: Coordinator) -> None:
    signatures = coordinator.ask("agreement_status")["signatures"]
    assert signatures == BOTH_HOLD
    only_ed25519(coordinator, "NO")
    signatures = coordinator.ask("agreement_status")["signatures"]
    assert signatures.startswith(BOTH_HOLD + "; the node of NO cannot yet; its operator must run")
    only_ed25519(coordinator, "EE")
    signatures = coordinator.ask("agreement_status")["signatures"]
    assert "; the nodes of EE, NO cannot yet; their operators must run" in signatures
