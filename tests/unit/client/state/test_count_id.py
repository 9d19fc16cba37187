"""The id of a permit's one cohort count in the ledger."""

import pytest

from client.state.count_id import COUNT_LABEL, count_id
from keys.derive import labelled_hash
from tests.support.documents import agreement, permit, study


def test_a_permit_has_one_count_id_which_is_no_run_id() -> None:
    agreed = agreement()
    some_study = study(agreed)
    one, two = permit(agreed, some_study, "DK"), permit(agreed, some_study, "EE")
    assert count_id(one) != count_id(two)
    digest = labelled_hash(COUNT_LABEL, one.digest.encode()).hex()
    assert count_id(one) == f"count-{digest[:26]}"
    assert len(count_id(one)) == 32
    with pytest.raises(ValueError, match="fromhex"):
        bytes.fromhex(count_id(one))
