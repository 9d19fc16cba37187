import json

import numpy as np

from protocols.tasks import CountByFeature, CountPatients
from protocols.tasks.layout import Grouping
from server.learning.tables import Table, read_table
from tests.support.patients import FEATURES, release

BY_SEX = CountPatients(patients_bound=1_000, strata=(Grouping(feature="sex"),))


def read(counts: list[float], noise_std: int = 128) -> Table:
    mechanism = release(BY_SEX, "count", noise_std=noise_std)
    noisy_sums = np.rint(np.array(counts) * mechanism.scale).astype(np.int64)
    return read_table(BY_SEX, FEATURES, mechanism, noisy_sums, countries=4)


def test_cells_carry_labels_counts_and_intervals() -> None:
    table = read([100.3, 250.0])
    assert table.groupings == ("sex",)
    assert table.noise_std == 2.0
    woman, man = table.cells
    assert (woman.labels, woman.count, woman.low, woman.high) == (("female",), 100, 96, 105)
    assert (man.labels, man.count) == (("male",), 250)


def test_a_small_cell_is_null_and_never_zero() -> None:
    small, negative = read([9.99, -4.0]).cells
    for cell in (small, negative):
        assert (cell.count, cell.low, cell.high) == (None, None, None)
    assert read([10.0, 11.0]).cells[0].count == 10
    as_json = json.loads(json.dumps(read([3.0, 50.0]).to_json()))
    assert as_json["cells"][0] == {
        "labels": ["female"],
        "count": None,
        "low": None,
        "high": None,
        "suppressed": True,
    }
    assert as_json["cells"][1]["suppressed"] is False


def test_an_interval_never_falls_below_zero() -> None:
    assert read([12.0, 12.0], noise_std=12_800).cells[0].low == 0


def test_a_histogram_names_every_grouping() -> None:
    task = CountByFeature(
        patients_bound=1_000,
        strata=(Grouping(feature="sex"),),
        of=Grouping(feature="age", edges=(50,)),
    )
    mechanism = release(task, "histogram")
    noisy_sums = np.arange(4, dtype=np.int64) * 100 * mechanism.scale
    table = read_table(task, FEATURES, mechanism, noisy_sums, countries=3)
    assert table.groupings == ("sex", "age")
    assert [cell.labels for cell in table.cells][2] == ("male", "<50")
    assert [cell.count for cell in table.cells] == [None, 100, 200, 300]
