"""Subnormal numbers are zero within the context, in this thread and in those that it starts."""

import platform
import threading

import numpy as np
import pytest

from protocols.numerics import denormals
from protocols.numerics.denormals import flushed_denormals

TINY = 1e-310


def flushes() -> bool:
    """Return whether subnormal inputs and results are zero."""
    inputs, results = np.full(3, TINY) * 0.5, np.full(3, 1e-300) * 1e-9
    return not inputs.any() and not results.any()


def test_subnormal_numbers_are_zero_within_the_context_only() -> None:
    assert platform.machine() in denormals._WORDS
    assert not flushes()
    with flushed_denormals():
        assert flushes()
        with flushed_denormals():
            assert flushes()
        assert flushes()
    assert not flushes()


def test_the_former_setting_comes_back_after_a_fault() -> None:
    with pytest.raises(ValueError, match="broken"), flushed_denormals():
        raise ValueError("broken")
    assert not flushes()


def test_other_threads_are_as_they_were_and_new_ones_inherit() -> None:
    seen: dict[str, bool] = {}
    begin = threading.Event()

    def look(name: str) -> None:
        begin.wait()
        seen[name] = flushes()

    seen_before = threading.Thread(target=look, args=("before",))
    seen_before.start()
    with flushed_denormals():
        within = threading.Thread(target=look, args=("within",))
        within.start()
        begin.set()
        within.join()
        seen_before.join()
    assert seen == {"before": False, "within": True}


def test_normal_arithmetic_is_the_same() -> None:
    values = np.random.default_rng(1).normal(size=1_000)
    usual = np.exp(values) @ values
    with flushed_denormals():
        assert np.exp(values) @ values == usual


def test_torch_is_covered_too() -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)  # as the node does: other threads may have begun without flushing
    with flushed_denormals():
        assert not (torch.full((100_000,), TINY, dtype=torch.float64) * 0.5).any()


def test_an_unknown_processor_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with flushed_denormals():
        assert not flushes()
