"""Only sums of updates of a task in local mode are accepted as derived, by every check."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from governance.documents.study import Study
from governance.policy.assessment import Act, assess
from protocols.numerics.mechanism import SMALLEST_NOISE_STD, Scope
from protocols.tasks import TASK_KINDS
from tests.support.documents import with_schedule
from tests.support.local_mode import FLOOR, GLM, ROUNDS, federation_of_unequal_countries
from tests.support.node_federation import NodeFederation, code_of, last_refusal
from tests.support.training_studies import drafted, proposed


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[NodeFederation]:
    federation = federation_of_unequal_countries(tmp_path / "federation")
    yield federation
    federation.close()


def study_without_local_mode(federation: NodeFederation) -> Study:
    return with_schedule(drafted(federation, GLM | {"local": None}), noise_std=1_000_000)


def study_in_local_mode(federation: NodeFederation) -> Study:
    return with_schedule(drafted(federation, GLM), noise_std=1_000_000)


def changed(study: Study, phase: str, **changes: Any) -> Study:
    return study.with_mechanisms(
        tuple(m.model_copy(update=changes) if m.phase == phase else m for m in study.mechanisms)
    )


FORGED = {
    "a plain training release declared as derived": lambda f: changed(
        study_without_local_mode(f), "train", scope=Scope.DERIVED
    ),
    "the same with the least noise": lambda f: changed(
        study_without_local_mode(f), "train", scope=Scope.DERIVED, noise_std=SMALLEST_NOISE_STD
    ),
    "a floor declared as derived": lambda f: changed(
        study_without_local_mode(f), FLOOR, scope=Scope.DERIVED
    ),
    "local steps declared as derived": lambda f: changed(
        study_in_local_mode(f), "local-step", scope=Scope.DERIVED
    ),
    "local steps declared as shared": lambda f: changed(
        study_in_local_mode(f), "local-step", scope=Scope.SHARED
    ),
    "fewer local steps than are taken": lambda f: changed(
        study_in_local_mode(f), "local-step", rounds=ROUNDS
    ),
    "local steps of a smaller sample": lambda f: changed(
        study_in_local_mode(f), "local-step", sampling_rate=0.01
    ),
    "updates without their steps": lambda f: study_in_local_mode(f).with_mechanisms(
        tuple(m for m in study_in_local_mode(f).mechanisms if m.phase != "local-step")
    ),
    "updates with other noise": lambda f: changed(study_in_local_mode(f), "train", noise_std=4),
    "updates on a finer lattice": lambda f: changed(study_in_local_mode(f), "train", scale=2**20),
    "a derived schedule on a study in shared mode": lambda f: study_without_local_mode(
        f
    ).with_mechanisms(study_in_local_mode(f).mechanisms),
    "a shared schedule on a study in local mode": lambda f: study_in_local_mode(f).with_mechanisms(
        study_without_local_mode(f).mechanisms
    ),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED.keys())
def test_a_forged_schedule_is_refused_everywhere(federation: NodeFederation, forge: Any) -> None:
    study = forge(federation)
    assert not study.schedule_matches_task
    assessment = assess(  # the checks of `study check` and of the officer's `show`
        study,
        federation.documents.agreed,
        country="DK",
        now=federation.clock(),
        act=Act.PROPOSE,
        installed_tasks=TASK_KINDS,
    )
    assert not assessment.allowed
    assert "study/not-priced" in assessment.clauses
    assert assessment.charge is None
    proposed(federation, study)
    run, node = federation.run(study), federation.nodes["DK"]
    assert code_of(node.handle(run.request("bundle", "DK"))) is not None
    assert last_refusal(node)["clause"] == "study/not-priced"
    assert not node.parts.ledger.entries()
