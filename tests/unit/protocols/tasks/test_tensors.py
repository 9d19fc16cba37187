import hashlib
import math

import numpy as np
import pytest
from pydantic import ValidationError

from protocols.errors import ProtocolFault
from protocols.tasks.tensors import (
    Initial,
    Tensor,
    check_names,
    penalised,
    split,
    start_vector,
)

WEIGHT = Tensor(name="layer0.weight", shape=(3, 2))
BIAS = Tensor(name="layer0.bias", shape=(3,), initial=Initial.ZEROS)
GAIN = Tensor(name="norm.weight", shape=(2,), initial=Initial.ONES)


def test_the_initial_model_is_the_same_on_every_machine() -> None:
    """Otherwise nodes and coordinator could start from different models."""
    start = start_vector((WEIGHT, BIAS, GAIN), seed=1)
    digest = hashlib.sha256(start.astype("<f8").tobytes()).hexdigest()
    assert digest == "30a04969310e97552a62506597b506c8932adf311dc1f31c8f911b634013ff68"


def test_the_initial_model_is_what_each_part_declares() -> None:
    start = start_vector((WEIGHT, BIAS, GAIN), seed=1)
    assert start[6:].tolist() == [0, 0, 0, 1, 1]
    assert (start[:6] != 0).all()
    assert np.abs(start[:6]).max() <= WEIGHT.reach == math.sqrt(3 / 2)


def test_another_seed_or_name_gives_another_initial_model() -> None:
    start = WEIGHT.start(1)
    assert not np.isclose(WEIGHT.start(2), start).any()
    assert not np.isclose(Tensor(name="layer1.weight", shape=(3, 2)).start(1), start).any()


def test_starting_weights_have_the_variance_of_one_over_their_inputs() -> None:
    start = Tensor(name="w", shape=(400, 50)).start(9)
    assert abs(start.mean()) < 0.005
    assert start.var() == pytest.approx(1 / 50, rel=0.05)


def test_parts_are_split_in_order_and_are_views() -> None:
    vector = np.arange(11.0)
    parts = split(vector, (WEIGHT, BIAS, GAIN))
    assert parts["layer0.weight"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert parts["norm.weight"].tolist() == [9, 10]
    parts["layer0.bias"][...] = -1
    assert vector[6:9].tolist() == [-1, -1, -1]


def test_only_weights_are_penalised_and_the_vector_is_unchanged() -> None:
    vector = np.arange(1.0, 12.0)
    assert penalised(vector, (WEIGHT, BIAS, GAIN)).tolist() == [1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0]
    assert vector.tolist() == list(range(1, 12))


def test_two_parts_of_one_name_are_refused() -> None:
    with pytest.raises(ProtocolFault, match="same name"):
        check_names((WEIGHT, WEIGHT))


@pytest.mark.parametrize("shape", [(), (0,), (1, 1, 1, 1, 1), (2, -1)])
def test_invalid_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        Tensor(name="w", shape=shape)
