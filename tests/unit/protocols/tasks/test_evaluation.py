import pytest
from pydantic import ValidationError

from protocols.errors import ProtocolFault
from protocols.tasks import Family
from protocols.tasks.evaluation import EVERYBODY, Evaluation
from protocols.tasks.features import by_name
from protocols.tasks.layout import Grouping
from protocols.tasks.schedule import EVALUATE
from protocols.wire.encoding import canonical_json
from tests.support.patients import FEATURES, glm


def test_one_half_is_always_a_bin_boundary() -> None:
    with pytest.raises(ValidationError, match="bins must be even"):
        Evaluation(bins=7)
    with pytest.raises(ProtocolFault, match=r"do not include 0\.5"):
        glm(evaluation=Evaluation(edges=(0.1, 0.2))).check(FEATURES)
    glm(evaluation=Evaluation(edges=(0.1, 0.5))).check(FEATURES)
    glm(Family.LINEAR, evaluation=Evaluation(edges=(0.1, 0.2))).check(FEATURES)


@pytest.mark.parametrize(
    "changes",
    [
        {"held_out": 0.9},
        {"share": 0.95},
        {"smallest_cell": 1},
        {"edges": (0.2, 0.1)},
        {"edges": (0.2, 0.2)},
        {"edges": (0.0, 0.5)},
        {"edges": (0.5, 1.0)},
        {"edges": (0.5, float("nan"))},
        {"edges": (5e-324, 0.5)},
        {"edges": (0.5, 0.5 + 9e-10)},
        {"edges": (0.5, 1 - 1e-16)},
        {"edges": tuple((n + 1) / 200 for n in range(150))},
        {"prevalence": 0.0},
        {"prevalence": 1.0},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Evaluation.model_validate(changes)


@pytest.mark.parametrize("family", [Family.LINEAR, Family.MULTINOMIAL])
def test_only_a_yes_no_target_has_a_prevalence(family: Family) -> None:
    with pytest.raises(ProtocolFault, match="declares a prevalence"):
        glm(family, evaluation=Evaluation(prevalence=0.1)).check(FEATURES)


def test_an_evaluation_of_an_earlier_version_is_written_as_it_was() -> None:
    written = canonical_json(Evaluation().model_dump(mode="json"))
    assert b"edges" not in written
    assert b"prevalence" not in written
    assert glm().schedule(FEATURES)[-1].model_dump(mode="json") == {
        "phase": EVALUATE,
        "rounds": 1,
        "sampling_rate": 1.0,
        "dimension": 20,
        "clip_norm": 1 + 1e-9,
        "scale": 128,
        "noise_std": 3,
        "patients_bound": 1000,
        "rounding": "integer",
        "scope": "shared",
    }


def test_groups_are_all_patients_or_the_subgroups() -> None:
    features_by_name = by_name(FEATURES)
    assert Evaluation().groups(features_by_name) == (EVERYBODY,)
    assert Evaluation(subgroup=Grouping(feature="sex")).groups(features_by_name) == (
        "female",
        "male",
    )
