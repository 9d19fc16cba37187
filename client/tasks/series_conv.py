"""`series-conv`: a small convolutional network over measurements in time order.

The study lists its inputs in time order, such as one value for each hour: the inputs of one patient
are one series. The filters are applied to neighbouring values everywhere in the series. Their
outputs are normalised together, and one linear layer follows.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MAX_CHANNELS = 256


def series_conv(parameters: Mapping[str, int], inputs: int, outputs: int) -> "torch.nn.Module":
    """Return the module. Its parameters are `channels` and `kernel`, an odd number of values.

    Raises ValueError for other parameters.
    """
    from torch import nn  # noqa: PLC0415 (takes seconds; most nodes never need it)

    channels, kernel = _sizes(parameters, inputs)
    return nn.Sequential(
        nn.Unflatten(1, (1, inputs)),
        nn.Conv1d(1, channels, kernel, padding=kernel // 2),
        nn.GroupNorm(1, channels),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(channels * inputs, outputs),
    )


def _sizes(parameters: Mapping[str, int], inputs: int) -> tuple[int, int]:
    if set(parameters) != {"channels", "kernel"}:
        raise ValueError("`series-conv` needs `channels` and `kernel`, and nothing else")
    channels, kernel = parameters["channels"], parameters["kernel"]
    if not 1 <= channels <= MAX_CHANNELS or not kernel % 2 or kernel > inputs:
        raise ValueError(
            f"`channels` must be 1 to {MAX_CHANNELS}; `kernel` must be odd and at most {inputs}"
        )
    return channels, kernel
