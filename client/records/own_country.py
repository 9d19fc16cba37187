"""The country of every patient, for studies with `by_country`: the node's, whatever records say."""

from dataclasses import replace

import numpy as np

from client.records.source import RecordedFeature, Records
from protocols.tasks.by_country import COUNTRY
from protocols.tasks.features import FeatureKind


def with_own_country(records: Records, country: str) -> Records:
    """Return the records with the feature `country`, in which every patient has this one.

    It replaces a feature of that name in the records: no record decides a patient's country.
    """
    feature = RecordedFeature(COUNTRY, FeatureKind.CATEGORICAL, levels=(country,))
    return replace(
        records,
        features={**records.features, COUNTRY: feature},
        columns={**records.columns, COUNTRY: np.zeros(records.patients)},
    )
