"""A model of another size is refused, with a code that reveals nothing about records."""

import numpy as np
import pytest

from client.tasks.requests import malformed, read_model
from protocols.errors import ReasonCode, Refusal
from protocols.tasks.layout import vector_to_bytes

MODEL = np.array([0.5, -2.0, 3.25])


def test_the_model_in_a_request_is_read() -> None:
    assert np.array_equal(read_model(vector_to_bytes(MODEL), 3), MODEL)


@pytest.mark.parametrize("dimension", [0, 2, 4])
def test_a_model_of_another_size_is_refused(dimension: int) -> None:
    with pytest.raises(Refusal) as refusal:
        read_model(vector_to_bytes(MODEL), dimension)
    assert refusal.value.code is ReasonCode.MALFORMED


def test_a_refusal_says_what_does_not_match_the_study() -> None:
    refusal = malformed("The release is unknown")
    assert (refusal.code, refusal.what) == (ReasonCode.MALFORMED, "The release is unknown")
    assert "signed study" in refusal.why
