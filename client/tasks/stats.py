"""The contribution of a patient to a table: one, in the cell of the patient's strata."""

import numpy as np

from client.records.cohort import Cohort
from protocols.tasks.score_table import Contributions
from protocols.tasks.stats import CountByFeature, CountPatients


def table_contributions(task: CountPatients | CountByFeature, cohort: Cohort) -> Contributions:
    """Return what each patient adds to the table, one value a patient."""
    cells = task.cell_of(cohort.features, cohort.columns, cohort.patients)
    return Contributions(np.ones((cohort.patients, 1)), cells[:, None])
