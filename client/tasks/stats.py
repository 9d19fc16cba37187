"""The contribution of a patient to a table: one, in the cell of the patient's strata."""

import numpy as np

from client.records.cohort import Cohort
from protocols.tasks.features import FloatArray
from protocols.tasks.stats import CountByFeature, CountPatients


def table_counts(task: CountPatients | CountByFeature, cohort: Cohort) -> FloatArray:
    """Return 0/1 vectors (patients, cells)."""
    counts = np.zeros((cohort.patients, task.cell_count(cohort.features)))
    cells = task.cell_of(cohort.features, cohort.columns, cohort.patients)
    counts[np.arange(cohort.patients), cells] = 1.0
    return counts
