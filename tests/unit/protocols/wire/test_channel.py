"""What a refused call says."""

from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from protocols.wire.channel import ExchangeLink


def refused_with(details: str) -> Any:
    error: Any = SimpleNamespace(
        code=lambda: grpc.StatusCode.FAILED_PRECONDITION, details=lambda: details
    )
    link: Any = SimpleNamespace(_address="localhost:7443")
    return ExchangeLink._fault(link, error)


@pytest.mark.parametrize(
    ("details", "why"),
    [
        (
            "It was used. To do: ask for a new one.",
            "it says 'It was used. To do: ask for a new one.'",
        ),
        ("two\nlines \u202e", r"it says 'two\nlines \u202e'"),
        ("", ""),
    ],
)
def test_a_refusal_repeats_the_other_party_s_words_as_a_quotation(details: str, why: str) -> None:
    fault = refused_with(details)
    assert (fault.why, fault.fix) == (why, "")
