"""Task definitions that both sides share: parameters, vector layout, schedule of releases."""

from typing import Annotated

from pydantic import Field

from protocols.tasks.features import Condition, Feature, FeatureKind, Missing
from protocols.tasks.glm import TrainGlm
from protocols.tasks.mlp import TrainMlp
from protocols.tasks.module import TrainModule
from protocols.tasks.stats import CountByFeature, CountPatients
from protocols.tasks.training import Family, Predictor, Training

Task = Annotated[
    TrainGlm | TrainMlp | TrainModule | CountPatients | CountByFeature,
    Field(discriminator="kind"),
]
"""Each has `check(features)`, `names_used(features)`, `schedule(features)` and `shares()`."""

TASK_KINDS = ("train/glm", "train/mlp", "train/module", "stats/count", "stats/histogram")
"""Every task kind of this version."""

__all__ = [
    "TASK_KINDS",
    "Condition",
    "CountByFeature",
    "CountPatients",
    "Family",
    "Feature",
    "FeatureKind",
    "Missing",
    "Predictor",
    "Task",
    "TrainGlm",
    "TrainMlp",
    "TrainModule",
    "Training",
]
