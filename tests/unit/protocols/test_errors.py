from keys.errors import PratiqueError
from protocols.errors import ProtocolFault, ReasonCode, Refusal


def test_a_refusal_has_a_code_for_the_coordinator_and_a_reason_for_the_country() -> None:
    refusal = Refusal(
        ReasonCode.BUDGET, "No budget is left", why="Spent", fix="wait", clause="budget/1"
    )
    assert refusal.code is ReasonCode.BUDGET
    assert refusal.clause == "budget/1"
    assert str(refusal) == "No budget is left. Spent. To do: wait."
    assert isinstance(refusal, ProtocolFault)
    assert isinstance(refusal, PratiqueError)


def test_codes_have_no_room_for_details() -> None:
    """A code is one or two words with hyphens, without a number or a name."""
    assert all(code.value.replace("-", "").isalpha() for code in ReasonCode)
    assert all(code.value.islower() for code in ReasonCode)
