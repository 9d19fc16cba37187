"""`series-conv`: a small convolutional network over measurements in the order of time.

The study lists its inputs in their order, such as a value for each hour: each row is a series. A
filter looks at neighbouring values wherever they stand; what all filters find is normalised,
and one linear layer reads it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MOST_CHANNELS = 256


def series_conv(parameters: Mapping[str, int], inputs: int, outputs: int) -> "torch.nn.Module":
    """Return the module. Its parameters are `channels` and an odd `kernel`, in values.

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
        raise ValueError("it needs `channels` and `kernel`, and nothing else")
    channels, kernel = parameters["channels"], parameters["kernel"]
    if not 1 <= channels <= MOST_CHANNELS or not kernel % 2 or kernel > inputs:
        raise ValueError(
            f"channels lie between 1 and {MOST_CHANNELS}, kernel is odd and at most the row's width"
        )
    return channels, kernel
