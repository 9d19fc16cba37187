"""Studies in local mode over four countries of different sizes."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governance.documents.study import Study
from protocols.private_sum.coordinator_round import OpenedSum
from protocols.tasks import Training
from protocols.tasks.layout import vector_to_bytes
from tests.support import training_studies
from tests.support.documents import with_schedule
from tests.support.node_federation import NodeFederation, Run, records
from tests.support.prepared import PreparationResult
from tests.support.training_studies import drafted, proposed

KINDS = ("train/glm", "train/mlp", "train/module")
ROUNDS, STEPS, COUNTRIES = 2, 3, 4
SIZES = {"DK": 70, "EE": 100, "NO": 81, "PT": 79}
FLOOR = "cohort-floor"
LOCAL = {"rounds": ROUNDS, "local": {"steps": STEPS}}
GLM, MLP, MODULE = (
    training_studies.GLM | LOCAL,
    training_studies.MLP | LOCAL,
    training_studies.MODULE | LOCAL,
)
QUICK = {"rounds": 1}


def federation_of_unequal_countries(folder: Path) -> NodeFederation:
    """Return four countries of different sizes and ages."""
    federation = NodeFederation(folder, changes={"task_kinds": KINDS})
    federation.prepare_once("of different sizes", lambda: _resized(federation))
    return federation


def _resized(federation: NodeFederation) -> PreparationResult:
    for number, (country, size) in enumerate(SIZES.items()):
        text = records(size, age=40 + 10 * number)
        federation.put_records(country, text)
        federation.restart(country)
    return ()


class RecordingNoise:
    """A noise source that gives the same value every time, and records what it was asked for."""

    def __init__(self, value: int = 7) -> None:
        self.value, self.asked = value, list[tuple[int, int]]()

    def draw(self, std: int, size: int) -> NDArray[np.int64]:
        self.asked.append((std, size))
        return np.full(size, self.value, np.int64)


def approved(federation: NodeFederation, task: dict[str, Any], **changes: Any) -> Study:
    """Return a study that every country permits; its stated noise is large."""
    return proposed(
        federation, with_schedule(drafted(federation, task, **changes), noise_std=1_000_000)
    )


def payload_of(study: Study) -> bytes:
    assert isinstance(study.task, Training)
    return vector_to_bytes(study.task.initial(study.features))


def sum_of_first_round(study: Study, run: Run) -> OpenedSum:
    outcome = run.sum(1, "train", payload_of(study))
    assert isinstance(outcome, OpenedSum)
    return outcome
