"""The task kinds that this node runs; everything else is refused.

A study names a task kind and a phase. A kind or phase that is not listed here is refused.
"""

from collections.abc import Mapping

from protocols.errors import ReasonCode, Refusal
from protocols.tasks.schedule import COHORT_FLOOR, COUNT, EVALUATE, HISTOGRAM, LOCAL_STEP, TRAIN

TRAINING_PHASES = (COHORT_FLOOR, LOCAL_STEP, TRAIN, EVALUATE)
INSTALLED: Mapping[str, tuple[str, ...]] = {
    "train/glm": TRAINING_PHASES,
    "train/mlp": TRAINING_PHASES,
    "train/module": TRAINING_PHASES,
    "stats/count": (COHORT_FLOOR, COUNT),
    "stats/histogram": (COHORT_FLOOR, HISTOGRAM),
}
"""Task kinds that this node runs, and the phases of each."""


def require_installed(kind: str, phase: str) -> None:
    """Raise Refusal TASK_UNKNOWN unless this node runs this phase of the task kind."""
    if phase not in INSTALLED.get(kind, ()):
        raise Refusal(
            ReasonCode.TASK_UNKNOWN,
            f"The phase `{phase}` of `{kind}` is not installed on this node",
            why="a node runs only the task kinds installed on it",
            fix="update this node's software, or ask for a study with an installed task kind",
        )
