import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from protocols.errors import ProtocolFault
from protocols.tasks import CountByFeature, CountPatients, Task
from protocols.tasks.layout import Grouping
from protocols.wire.encoding import canonical_json
from tests.support.patients import FEATURES, columns

TASKS: TypeAdapter[Task] = TypeAdapter(Task)
SEX = Grouping(feature="sex")
AGE = Grouping(feature="age", edges=(40, 60))


def count(**changes: object) -> CountPatients:
    return CountPatients.model_validate({"patients_bound": 1_000, **changes})


def histogram(**changes: object) -> CountByFeature:
    return CountByFeature.model_validate({"patients_bound": 1_000, "of": AGE, **changes})


@pytest.mark.parametrize("task", [count(strata=(SEX,)), histogram(strata=(SEX,))])
def test_a_table_is_read_back_from_its_canonical_form(task: Task) -> None:
    data = canonical_json(task.model_dump(mode="json"))
    again = TASKS.validate_json(data, strict=True)
    assert again == task
    assert type(again) is type(task)


def test_cells_are_strata_first_and_the_feature_fastest() -> None:
    assert histogram(strata=(SEX,)).cells(FEATURES)[:4] == (
        ("female", "<40"),
        ("female", "40 to <60"),
        ("female", ">=60"),
        ("male", "<40"),
    )
    assert count().cells(FEATURES) == ((),)


def test_every_patient_is_in_one_cell_of_the_table() -> None:
    task = histogram(strata=(SEX, Grouping(feature="smoker")))
    cells = task.cell_of(FEATURES, columns(200), 200)
    assert cells.shape == (200,)
    assert ((cells >= 0) & (cells < len(task.cells(FEATURES)))).all()
    assert len(np.unique(cells)) == 18


def test_names_used_are_those_of_the_grouping() -> None:
    assert histogram(strata=(SEX,)).names_used(FEATURES) == ("sex", "age")
    assert count().names_used(FEATURES) == ()


def test_the_schedule_is_floor_and_table() -> None:
    floor, table = histogram(strata=(SEX,)).schedule(FEATURES)
    assert (floor.phase, table.phase, table.dimension) == ("cohort-floor", "histogram", 6)
    assert count().schedule(FEATURES)[1].phase == "count"
    assert sum(count().cost_fractions()) == pytest.approx(1)
    assert table.squared_sensitivity == table.scale**2


def test_an_invalid_grouping_is_named() -> None:
    with pytest.raises(ProtocolFault, match="`weight`"):
        count(strata=({"feature": "weight"},)).check(FEATURES)
    with pytest.raises(ProtocolFault, match="needs edges"):
        histogram(of={"feature": "age"}).check(FEATURES)
    histogram(strata=(SEX,)).check(FEATURES)


def test_a_table_too_large_is_refused() -> None:
    fine = {"feature": "age", "edges": list(range(1, 400))}
    wide = {"feature": "pressure", "edges": list(range(1, 400))}
    with pytest.raises(ProtocolFault, match="more than 100000 cells"):
        histogram(of=fine, strata=(wide,)).check(FEATURES)


def test_a_smallest_cell_below_five_is_refused() -> None:
    with pytest.raises(ValidationError):
        count(smallest_cell=1)
