import numpy as np

from client.tasks.stats import table_counts
from protocols.tasks import CountByFeature, CountPatients
from protocols.tasks.layout import Grouping
from tests.support.patients import FEATURES, cohort


def test_a_count_without_strata_counts_everybody() -> None:
    counts = table_counts(CountPatients(patients_bound=100), cohort(12))
    assert counts.tolist() == [[1.0]] * 12


def test_a_histogram_agrees_with_plain_counting() -> None:
    task = CountByFeature(
        patients_bound=1000,
        strata=(Grouping(feature="sex"),),
        of=Grouping(feature="sugar", edges=(100, 200)),
    )
    people = cohort(300)
    counts = table_counts(task, people)
    assert (counts.sum(axis=1) == 1).all()
    count_by_cell = dict(zip(task.cells(FEATURES), counts.sum(axis=0), strict=True))
    male, sugar = people.columns["sex"] == 1, people.columns["sugar"]
    assert count_by_cell["male", "100 to <200"] == (male & (sugar >= 100) & (sugar < 200)).sum()
    assert count_by_cell["female", "missing"] == (~male & np.isnan(sugar)).sum()


def test_no_patients_give_a_table_without_rows() -> None:
    assert table_counts(CountPatients(patients_bound=100), cohort(0)).shape == (0, 1)
