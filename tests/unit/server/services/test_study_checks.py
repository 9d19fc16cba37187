"""Completing a study: which schedules are refused."""

import pytest

from governance.documents.study import Study
from protocols.errors import ProtocolFault
from protocols.numerics.mechanism import Scope
from server.services.study_checks import complete
from tests.support.documents import agreement, study

AGREED = agreement()


def widened(scope: Scope) -> Study:
    """Return a study whose releases of this scope may not fit a word, whatever the noise."""
    some_study = study(AGREED)
    wide = {"noise_std": 2**40, "clip_norm": 1e6, "scale": 2**24, "patients_bound": 10**9}
    changed = [m.model_copy(update=wide) if m.scope is scope else m for m in some_study.mechanisms]
    return some_study.with_mechanisms(tuple(changed)).model_copy(
        update={"privacy": some_study.privacy.model_copy(update={"epsilon": 1e3})}
    )


def test_a_study_whose_sums_may_not_fit_a_word_is_refused_when_it_is_checked() -> None:
    with pytest.raises(ProtocolFault, match="'histogram' may overflow a word of 64 bits") as fault:
        complete(widened(Scope.SHARED), AGREED)
    assert "patients_bound" in fault.value.fix


def test_a_count_that_never_leaves_its_country_needs_no_word() -> None:
    some_study = widened(Scope.LOCAL)
    assert complete(some_study, AGREED) == some_study
