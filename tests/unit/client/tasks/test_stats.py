import numpy as np

from client.tasks.stats import table_contributions
from protocols.tasks import CountByFeature, CountPatients
from protocols.tasks.layout import Grouping
from tests.support.patients import FEATURES, cohort, dense


def test_a_count_without_strata_counts_everybody() -> None:
    added = table_contributions(CountPatients(patients_bound=100), cohort(12))
    assert dense(added, 1).tolist() == [[1.0]] * 12


def test_a_histogram_agrees_with_plain_counting() -> None:
    task = CountByFeature(
        patients_bound=1000,
        strata=(Grouping(feature="sex"),),
        of=Grouping(feature="sugar", edges=(100, 200)),
    )
    people = cohort(300)
    counts = dense(table_contributions(task, people), task.cell_count(FEATURES))
    assert (counts.sum(axis=1) == 1).all()
    count_by_cell = dict(zip(task.cells(FEATURES), counts.sum(axis=0), strict=True))
    male, sugar = people.columns["sex"] == 1, people.columns["sugar"]
    assert count_by_cell["male", "100 to <200"] == (male & (sugar >= 100) & (sugar < 200)).sum()
    assert count_by_cell["female", "missing"] == (~male & np.isnan(sugar)).sum()


def test_no_patients_give_a_table_without_rows() -> None:
    added = table_contributions(CountPatients(patients_bound=100), cohort(0))
    assert dense(added, 1).shape == (0, 1)
