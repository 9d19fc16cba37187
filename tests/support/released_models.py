"""A released model for a node to calibrate: its study, its signed result, records, a permit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from client.commands.calibrate import ModelCalibration
from client.commands.calibration_file import Written
from client.node import Node
from governance.documents.permit import PermitConditions
from governance.documents.study import Study
from governance.results.result import write_result
from protocols.tasks import Training
from protocols.tasks.features import FloatArray
from protocols.tasks.training import sigmoid
from tests.support.documents import DAY, NOW, raw_key, training_fields
from tests.support.node_federation import NodeFederation
from tests.support.results import made_result

PATIENTS = 1_500
SHIFT = 0.9
"""How much higher the log odds are in the country than the model says."""
SCALE = 1.4
"""By how much steeper they are."""
SIGNER = raw_key(2)
"""The coordinator's document key in `tests.support.documents`."""
EVALUATED = {"evaluation": {"held_out": 0.4}}


def trained(**task: Any) -> dict[str, Any]:
    """Return the fields of a study that trains a model of the disease, in all patients."""
    return training_fields(**{"rounds": 1, **EVALUATED, **task})


def permitted(
    federation: NodeFederation, study: Study, country: str = "DK", **conditions: Any
) -> Study:
    """Publish a study, and have one country permit it and its calibration."""
    federation.propose(study)
    stated = {"expires": NOW + 60 * DAY, "calibrate": True} | conditions
    federation.permit(country, study, conditions=PermitConditions(**stated))
    federation.nodes[country].sync()
    return study


def weights_of(study: Study) -> FloatArray:
    """Return a model that depends on age and sex."""
    return np.linspace(-0.9, 0.8, _task(study).dimension(study.features))


def _task(study: Study) -> Training:
    assert isinstance(study.task, Training)
    return study.task


def released(study: Study, folder: Path, /, **changes: Any) -> Path:
    """Write the result of a study as the coordinator would, and return its folder."""
    key = changes.pop("key", SIGNER)
    weights = changes.pop("weights", None)
    of_study = {
        "study_id": study.id,
        "study": study.digest,
        "agreement": study.agreement,
        "countries": study.countries,
        "roster_size": len(study.countries),
        "task": study.task,
        "features": study.features,
    }
    result = made_result(key.public, **of_study | changes)
    write_result(folder, result, key.sign, weights_of(study) if weights is None else weights)
    return folder


def shifted_rows(study: Study, patients: int = PATIENTS) -> list[str]:
    """Return rows of patients whose log odds are SHIFT + SCALE times those of the model."""
    generator = np.random.default_rng(7)  # the same patients in every test
    task = _task(study)
    ages = generator.integers(20, 100, patients).astype(float)
    sexes = generator.integers(0, 2, patients).astype(float)
    columns = {"age": ages, "sex": sexes}
    inputs = task.input_features(study.features)
    rows = task.rows(study.features, {feature.name: columns[feature.name] for feature in inputs})
    scores = (rows @ weights_of(study))[:, None]
    ill = generator.random(patients) < sigmoid(SHIFT + SCALE * scores)[:, 0]
    return [
        f"p{n},{age:.0f},{'FM'[int(sex)]},{int(each)}"
        for n, (age, sex, each) in enumerate(zip(ages, sexes, ill, strict=True))
    ]


def give_records(node: Node, rows: list[str]) -> None:
    """Replace the node's records."""
    text = "\n".join(["id,age,sex,disease", *rows]) + "\n"
    node.parts.settings.data.write_text(text)


def calibrated(
    node: Node, source: Path, *, out: Path | None = None, replace: bool = False
) -> Written:
    """Do what `pratique-node calibrate` does without a daemon, in the node's process."""
    take_over = node.parts.updates.collect
    command = ModelCalibration(node.parts, source, out=out, replace=replace, take_over=take_over)
    return command.run()


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change the result on disk, and not its signature."""
    file = folder / "result.json"
    fields = json.loads(file.read_text())
    change(fields)
    file.write_text(json.dumps(fields))
    return folder
