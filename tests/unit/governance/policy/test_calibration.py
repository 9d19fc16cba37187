"""What officers read about calibration, without a permit and with each kind."""

import pytest

from governance.documents.permit import PermitConditions
from governance.policy.calibration import ALLOWED, FORBIDDEN, UNDECIDED, calibration_in_words
from protocols.wire.encoding import canonical_json
from tests.support.documents import DAY, NOW, agreement, permit, study


@pytest.mark.parametrize(("allowed", "words"), [(True, ALLOWED), (False, FORBIDDEN)])
def test_the_permit_decides(*, allowed: bool, words: str) -> None:
    conditions = PermitConditions(expires=NOW + DAY, calibrate=allowed)
    agreed = agreement()
    assert calibration_in_words(permit(agreed, study(agreed), conditions=conditions)) == words


def test_before_the_decision_the_option_is_named() -> None:
    assert calibration_in_words(None) == UNDECIDED
    assert "--calibrate" in UNDECIDED
    assert calibration_in_words(None, may_approve=False) == FORBIDDEN


def test_a_permit_without_it_is_written_as_before() -> None:
    """So earlier permits keep their digest, and earlier nodes read permits without it."""
    conditions = PermitConditions(expires=NOW + DAY)
    assert "calibrate" not in conditions.model_dump()
    assert b"calibrate" not in canonical_json(conditions.model_dump(mode="json"))
    allowed = conditions.model_copy(update={"calibrate": True})
    assert allowed.model_dump(mode="json")["calibrate"] is True
