"""A country's decision about a study."""

from datetime import timedelta

from client.documents.study_status import (
    EXPIRED,
    LAPSED,
    PERMITTED,
    UNDECIDED,
    WITHDRAWN,
    study_status,
)
from tests.support.documents import NOW, agreement, permit, study, withdrawal


def test_a_country_has_one_of_five_decisions_about_a_study() -> None:
    agreed = agreement()
    some_study = study(agreed)
    yes, no = permit(agreed, some_study), withdrawal(some_study)
    assert study_status(some_study, None, None, NOW) == UNDECIDED
    assert study_status(some_study, yes, None, NOW) == PERMITTED
    assert study_status(some_study, yes, no, NOW) == WITHDRAWN
    assert study_status(some_study, None, no, NOW) == WITHDRAWN
    assert study_status(some_study, yes, None, yes.conditions.expires) == LAPSED
    just_before = yes.conditions.expires - timedelta(seconds=1)
    assert study_status(some_study, yes, None, just_before) == PERMITTED
    assert study_status(some_study, yes, None, some_study.expires) == EXPIRED
