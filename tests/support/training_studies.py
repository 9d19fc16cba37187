"""Training tasks of each kind for tests, and how to run their studies over real nodes."""

from typing import Any

from governance.documents.study import Study
from server.runs.procedure import Outcome, run_procedure
from server.runs.rounds import RoundDriver
from tests.support.coordinator_services import NodesCarrier
from tests.support.documents import study_fields
from tests.support.node_federation import NodeFederation
from tests.support.patients import series_parts

RATE = 0.5
COMMON: dict[str, Any] = {
    "family": "logistic",
    "target": "disease",
    "learning_rate": RATE,
    "average_last": 0.0,
    "clip_norm": 5.0,
    "patients": 320,
    "patients_bound": 1_000,
    "evaluation": None,
}
"""The fields of every kind; a test states the number of rounds."""
GLM = COMMON | {"kind": "train/glm"}
MLP = COMMON | {"kind": "train/mlp", "hidden": [4, 3], "seed": 25}
MODULE = COMMON | {
    "kind": "train/module",
    "seed": 16,
    "module": "series-conv",
    "version": 1,
    "parameters": {"channels": 2, "kernel": 3},
    "parts": series_parts(inputs=3, channels=2, kernel=3, outputs=1),
}
"""Both seeds are chosen so that, for the records of these tests, the input of each rectifier is at
least ten standard deviations of the rounding away from zero: rounding turns no unit on or off."""


def drafted(federation: NodeFederation, task: dict[str, Any], **changes: Any) -> Study:
    fields = {
        "task": task,
        "release": {"what": "model", "keep_days": 365, "audience": "the public"},
        "privacy": {"epsilon": 2.5, "delta": 1e-5},
        "population": {"register": "patients"},
    }
    return Study.model_validate(study_fields(federation.documents.agreed, **fields | changes))


def proposed(federation: NodeFederation, study: Study) -> Study:
    return federation.approve(study)


def run_study(federation: NodeFederation, study: Study, *, without: str = "") -> Outcome:
    """Run a study and return its outcome; one country may stop replying after set-up."""
    run, carrier = federation.run(study), NodesCarrier(federation)
    driver = RoundDriver(
        run.coordinator,
        run.terms.roster,
        carrier,
        seconds=9.0,
        keep_closed=lambda *_: None,
    )
    driver.set_up()
    carrier.silent |= {without}
    return run_procedure(study, driver, lambda *_: None)
