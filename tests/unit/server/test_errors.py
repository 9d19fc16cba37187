"""The text of a country's refusal."""

from protocols.errors import ReasonCode
from server.errors import GONE, refused_with


def test_a_refusal_is_named_by_its_code() -> None:
    assert refused_with(ReasonCode.NO_PERMIT) == "refused (no-permit)"
    assert refused_with(ReasonCode.STALE) == GONE
