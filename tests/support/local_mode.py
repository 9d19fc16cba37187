"""Studies in local mode over four countries of different sizes, led through real nodes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governance.documents.study import Study
from protocols.private_sum.opening import OpenedSum
from protocols.tasks import Training
from protocols.tasks.layout import vector_to_bytes
from server.lead import Outcome, lead
from server.rounds import Conductor
from tests.support.documents import priced, study_fields
from tests.support.nodes import Federation, Run, records

KINDS = ("train/glm", "train/mlp", "train/module")
ROUNDS, STEPS, RATE, COUNTRIES = 2, 3, 0.5, 4
SIZES = {"DK": 60, "EE": 100, "NO": 81, "PT": 79}
FLOOR = "cohort-floor"
COMMON: dict[str, Any] = {
    "family": "logistic",
    "target": "disease",
    "rounds": ROUNDS,
    "learning_rate": RATE,
    "average_last": 0.0,
    "clip_norm": 5.0,
    "patients": 320,
    "patients_bound": 1_000,
    "evaluation": None,
    "local": {"steps": STEPS},
}
GLM = COMMON | {"kind": "train/glm"}
MLP = COMMON | {"kind": "train/mlp", "hidden": [4, 3], "seed": 7}
MODULE = COMMON | {
    "kind": "train/module",
    "module": "series-conv",
    "version": 1,
    "parameters": {"channels": 2, "kernel": 3},
    "parts": [
        {"name": "1.weight", "shape": [2, 1, 3]},
        {"name": "1.bias", "shape": [2], "initial": "zeros"},
        {"name": "2.weight", "shape": [2], "initial": "ones"},
        {"name": "2.bias", "shape": [2], "initial": "zeros"},
        {"name": "5.weight", "shape": [1, 6]},
        {"name": "5.bias", "shape": [1], "initial": "zeros"},
    ],
}
QUICK = {"rounds": 1}


def unequal(folder: Path) -> Federation:
    """Return four countries of different sizes and ages."""
    made = Federation(folder, changes={"task_kinds": KINDS})
    for number, (country, size) in enumerate(SIZES.items()):
        text = records(size, age=40 + 10 * number)
        (made.home(country).path / "records.csv").write_text(text)
        made.restart(country)
    return made


class Straight:
    """Carries every frame to its node and back at once."""

    def __init__(self, federation: Federation) -> None:
        self._nodes, self.silent = federation.nodes, set[str]()

    def exchange(self, frames: Mapping[str, bytes], seconds: float) -> Mapping[str, bytes]:
        heard = {c: frame for c, frame in frames.items() if c not in self.silent}
        return {country: self._nodes[country].handle(frame) for country, frame in heard.items()}


class Recorder:
    """A noise source that gives the same every time and remembers what it was asked for."""

    def __init__(self, value: int = 7) -> None:
        self.value, self.asked = value, list[tuple[int, int]]()

    def draw(self, std: int, size: int) -> NDArray[np.int64]:
        self.asked.append((std, size))
        return np.full(size, self.value, np.int64)


def drafted(federation: Federation, task: dict[str, Any], **changes: Any) -> Study:
    fields = {
        "id": "in-local-mode",
        "task": task,
        "release": {"what": "model", "keep_days": 365, "audience": "the public"},
        "privacy": {"epsilon": 2.5, "delta": 1e-5},
        "population": {"register": "patients"},
    }
    return Study.model_validate(study_fields(federation.papers.agreed, **fields | changes))


def proposed(federation: Federation, study: Study) -> Study:
    federation.papers.propose(study)
    for country in study.countries:
        federation.permit(country, study)
    federation.sync()
    return study


def approved(federation: Federation, task: dict[str, Any], **changes: Any) -> Study:
    """Return a study that every country permits; its noise is large on paper."""
    return proposed(federation, priced(drafted(federation, task, **changes), noise_std=1_000_000))


def led(federation: Federation, study: Study, *, without: str = "") -> Outcome:
    """Return what a run comes to; one country may fall silent once keys are agreed."""
    run, carrier = federation.run(study), Straight(federation)
    conductor = Conductor(
        run.coordinator,
        run.terms.roster,
        carrier,
        seconds=9.0,
        keep_closed=lambda *_: None,
    )
    conductor.set_up()
    carrier.silent |= {without}
    return lead(study, conductor, lambda *_: None)


def payload_of(study: Study) -> bytes:
    assert isinstance(study.task, Training)
    return vector_to_bytes(study.task.initial(study.features))


def opened_first(study: Study, run: Run) -> OpenedSum:
    found = run.sum(1, "train", payload_of(study))
    assert isinstance(found, OpenedSum)
    return found
