"""The built-in module has the parts that a study declares, and refuses other parameters."""

import pytest

torch = pytest.importorskip("torch")

from client.tasks.series_conv import MAX_CHANNELS, series_conv  # noqa: E402 (needs torch)
from tests.support.patients import series_parts  # noqa: E402


@pytest.mark.parametrize(("channels", "kernel", "inputs", "outputs"), [(1, 1, 1, 1), (4, 3, 24, 3)])
def test_the_parts_of_the_module_are_those_of_the_study(
    channels: int, kernel: int, inputs: int, outputs: int
) -> None:
    module = series_conv({"channels": channels, "kernel": kernel}, inputs, outputs)
    shapes = {name: tuple(part.shape) for name, part in module.named_parameters()}
    declared = series_parts(inputs, channels, kernel, outputs)
    assert shapes == {part["name"]: tuple(part["shape"]) for part in declared}
    assert module(torch.zeros(5, inputs)).shape == (5, outputs)


def test_the_output_for_a_patient_depends_on_that_patient_alone() -> None:
    module = series_conv({"channels": 3, "kernel": 3}, 8, 2).double()
    rows = torch.arange(32, dtype=torch.float64).reshape(4, 8)
    assert torch.allclose(module(rows)[1], module(rows[1:2])[0])


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"channels": 2},
        {"channels": 2, "kernel": 3, "stride": 1},
        {"channels": 0, "kernel": 3},
        {"channels": MAX_CHANNELS + 1, "kernel": 3},
        {"channels": 2, "kernel": 2},
        {"channels": 2, "kernel": 9},
    ],
)
def test_other_parameters_are_refused(parameters: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"needs|must be"):
        series_conv(parameters, 8, 1)
