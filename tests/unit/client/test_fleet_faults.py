"""Why a Fleet call was refused, in words."""

import httpx
import pytest

from client.fleet_faults import StatusFault, status_fault, with_status_faults
from protocols.wire.flower_frame import IDENTITY_IN_USE, SESSION_ENDED


def refusing(status: int) -> None:
    httpx.Response(
        status, request=httpx.Request("POST", "http://x"), text="t" * 900
    ).raise_for_status()


def test_each_status_has_its_words_and_an_unknown_one_is_quoted() -> None:
    assert status_fault(IDENTITY_IN_USE).what != status_fault(SESSION_ENDED).what
    assert status_fault(599, "odd").why == "status 599: odd"


def test_a_refused_call_raises_a_new_fault_with_few_of_the_words_of_others() -> None:
    with pytest.raises(StatusFault) as first:
        with_status_faults(lambda: refusing(503))
    with pytest.raises(StatusFault) as second:
        with_status_faults(lambda: refusing(503))
    assert first.value is not second.value
    assert first.value.why is not None
    assert len(first.value.why) < 250
    assert with_status_faults(lambda: 7) == 7
