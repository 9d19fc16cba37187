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
    asked = study(agreed)
    yes, no = permit(agreed, asked), withdrawal(asked)
    assert study_status(asked, None, None, NOW) == UNDECIDED
    assert study_status(asked, yes, None, NOW) == PERMITTED
    assert study_status(asked, yes, no, NOW) == WITHDRAWN
    assert study_status(asked, None, no, NOW) == WITHDRAWN
    assert study_status(asked, yes, None, yes.conditions.expires) == LAPSED
    just_before = yes.conditions.expires - timedelta(seconds=1)
    assert study_status(asked, yes, None, just_before) == PERMITTED
    assert study_status(asked, yes, None, asked.expires) == EXPIRED
