"""A study in local mode through the coordinator's services, from its check to its release."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from governance.budget.ledger import Terms
from governance.policy.assessment import ledger_terms
from governance.results.result import read_result
from keys.errors import PratiqueError
from keys.identity import VerifyKey
from protocols.numerics.mechanism import Scope
from server.runs import attempt as conducting
from server.runs.attempt import run_attempt
from tests.support.coordinator_services import Coordinator, LocalRunServices, NodesCarrier
from tests.support.documents import raw_key, study, study_fields, training_fields, with_schedule
from tests.support.node_federation import NodeFederation

TASK = {"sampling_rate": 1.0, "patients_bound": 1_000, "evaluation": {}, "local": {"steps": 3}}
PRIVACY = {"epsilon": 2.0, "delta": 1e-5}
TRAINING = training_fields(2, **TASK) | {"id": "in-local-mode", "privacy": PRIVACY}


@pytest.fixture
def coordinator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Coordinator]:
    federation = NodeFederation(tmp_path / "federation")
    running = Coordinator(federation, tmp_path / "coordinator")

    monkeypatch.setattr(conducting, "utc_now", running.clock)
    yield running
    federation.close()


def draft(coordinator: Coordinator, **changes: Any) -> str:
    fields = study_fields(coordinator.federation.documents.agreed, **TRAINING)
    return json.dumps(fields | changes)


def test_a_check_says_what_training_relies_on_and_a_draft_gets_its_schedule(
    coordinator: Coordinator,
) -> None:
    checked = coordinator.ask("study_check", text=draft(coordinator), source="study.yaml")
    assert "3 steps of training by itself" in checked["local_mode"]
    assert "its own noise alone" in checked["local_mode"]
    releases = {one["phase"]: one for one in checked["study"]["mechanisms"]}
    assert releases["local-step"]["rounds"] == 6
    assert (releases["train"]["scope"], releases["train"]["noise_std"]) == ("derived", 3)
    plain = TRAINING["task"] | {"local": None}
    shared = coordinator.ask("study_check", text=draft(coordinator, task=plain), source="x")
    assert shared["local_mode"] == ""


@pytest.mark.parametrize("noise_std", [3, 3_000])
def test_a_training_release_that_is_declared_as_derived_is_not_proposed(
    coordinator: Coordinator, noise_std: int
) -> None:
    """Its ε is small, because a derived release costs nothing; but no task has this schedule."""
    task = TRAINING["task"] | {"local": None}
    plain = study(coordinator.federation.documents.agreed, **TRAINING | {"task": task})
    schedule = [one.model_dump(mode="json") for one in with_schedule(plain, 30_000).mechanisms]
    schedule[1] |= {"scope": Scope.DERIVED.value, "noise_std": noise_std}
    text = draft(coordinator, task=task, mechanisms=schedule)
    checked = coordinator.ask("study_check", text=text, source="study.yaml")
    assert not any(one["allowed"] for one in checked["countries"])
    with pytest.raises(PratiqueError, match="is not the one its task makes"):
        coordinator.ask("study_propose", text=text, source="study.yaml")
    assert not coordinator.context.view().studies


def test_a_run_ends_with_a_result_that_says_whose_noise_it_relied_on(
    coordinator: Coordinator,
) -> None:
    approved = coordinator.federation.approved(**TRAINING)
    run = str(coordinator.ask("study_launch", name=approved.id)["run"])
    carrier = NodesCarrier(coordinator.federation)
    run_attempt(coordinator.home, run, 1, carrier, LocalRunServices(coordinator), seconds=1)
    status = coordinator.ask("study_status", name=approved.id)
    assert (status["state"], status["round"], status["rounds"]) == ("finished", 3, 3)
    key = VerifyKey.from_text(raw_key(2).public.to_text())
    result = read_result(coordinator.home.results / approved.id, [key])
    assert "its own noise alone" in result.statement
    assert result.model is not None
    terms = budget(coordinator)
    for country, node in coordinator.federation.nodes.items():
        spent = node.parts.ledger.view(terms).spent_micro
        assert status["ledgers"][country]["spent"] == pytest.approx(spent / terms.cap_micro)


def budget(coordinator: Coordinator) -> Terms:
    return ledger_terms(coordinator.federation.documents.agreed, "patients", coordinator.clock())
