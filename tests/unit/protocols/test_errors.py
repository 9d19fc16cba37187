from keys.errors import PratiqueError
from protocols.errors import ProtocolFault, ReasonCode, Refusal


def test_a_refusal_has_a_code_for_the_coordinator_and_a_reason_for_its_own_people() -> None:
    refusal = Refusal(
        ReasonCode.BUDGET, "No budget is left", why="Spent", fix="wait", clause="budget/1"
    )
    assert refusal.code is ReasonCode.BUDGET
    assert refusal.clause == "budget/1"
    assert str(refusal) == "No budget is left. Spent. To do: wait."
    assert isinstance(refusal, ProtocolFault)
    assert isinstance(refusal, PratiqueError)


def test_codes_say_nothing_in_particular() -> None:
    """A code is a word or two with hyphens: no room for a number or a name."""
    assert all(code.value.replace("-", "").isalpha() for code in ReasonCode)
    assert all(code.value.islower() for code in ReasonCode)
