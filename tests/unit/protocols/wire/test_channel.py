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
    ("details", "why", "fix"),
    [
        (
            "It was not accepted. It was already used. To do: ask for a new one.",
            "It was not accepted. It was already used.",
            "ask for a new one",
        ),
        ("this certificate was revoked", "this certificate was revoked", ""),
        ("", "", ""),
    ],
)
def test_a_refusal_says_what_to_do_once(details: str, why: str, fix: str) -> None:
    fault = refused_with(details)
    assert (fault.why, fault.fix) == (why, fix)
    assert str(fault).count("To do:") == bool(fix)
