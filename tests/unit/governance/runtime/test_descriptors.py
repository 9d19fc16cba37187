"""A daemon asks for as many descriptors as it may have."""

import resource

import pytest

from governance.runtime.descriptors import USUAL_LIMIT, descriptor_limit, raise_descriptor_limit

INFINITE = resource.RLIM_INFINITY


class Kernel:
    """The limits of a process, and whether it may raise them."""

    def __init__(self, soft: int, hard: int, *, refuses: bool = False) -> None:
        self.limits, self._refuses = (soft, hard), refuses

    def getrlimit(self, _: int) -> tuple[int, int]:
        return self.limits

    def setrlimit(self, _: int, limits: tuple[int, int]) -> None:
        if self._refuses:
            raise ValueError("not allowed to raise maximum limit")
        self.limits = limits


@pytest.mark.parametrize(
    ("soft", "hard", "after"),
    [
        (1024, 4096, 4096),
        (1024, 1024, 1024),
        (1024, 1_048_576, USUAL_LIMIT),
        (1024, INFINITE, USUAL_LIMIT),
        (200_000, 1_048_576, 200_000),
        (INFINITE, INFINITE, USUAL_LIMIT),
    ],
)
def test_the_limit_is_raised_as_far_as_it_may(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, after: int
) -> None:
    kernel = Kernel(soft, hard)
    monkeypatch.setattr(resource, "getrlimit", kernel.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", kernel.setrlimit)
    raise_descriptor_limit()
    assert descriptor_limit() == after
    assert kernel.limits == (soft if soft == INFINITE else after, hard)


def test_a_refusal_of_the_kernel_leaves_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(1024, 4096, refuses=True)
    monkeypatch.setattr(resource, "getrlimit", kernel.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", kernel.setrlimit)
    raise_descriptor_limit()
    assert descriptor_limit() == 1024
