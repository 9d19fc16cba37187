"""The error tree as drawn in keys/errors.py is the one that the packages define."""

import importlib
import pkgutil
import re
from collections.abc import Iterator

import pytest

import keys.errors
from keys.errors import PratiqueError

ROOMS = ("keys", "protocols", "governance", "client", "server")
DRAWN = re.compile(r"(?m)^(?P<indent>[ │]*)[├└]── (?P<name>\w+) +(?P<says>\S.*)$")
INDENT = 4
CONTROL_FLOW = {"SkipCheck", "NeedsAttention"}
"""They end a check of `pratique-node doctor`; no person sees them as an error."""


def drawn_tree() -> dict[str, str]:
    """Return the drawing: each error's name with the name of the error above it."""
    above, parents = [PratiqueError.__name__], {}
    for line in DRAWN.finditer(keys.errors.__doc__ or ""):
        depth = len(line["indent"]) // INDENT
        parents[line["name"]] = above[depth - 1]
        above[depth:] = [line["name"]]
    return parents


def import_every_module() -> None:
    for room in ROOMS:
        package = importlib.import_module(room)
        for module in pkgutil.walk_packages(package.__path__, f"{room}."):
            if ".migrations" not in module.name:
                importlib.import_module(module.name)


def below(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    for error in kind.__subclasses__():
        yield error
        yield from below(error)


@pytest.fixture(scope="module")
def defined() -> list[type[BaseException]]:
    """Return every exception that the packages define and other modules may use."""
    import_every_module()
    ours = {error for error in below(BaseException) if error.__module__.split(".")[0] in ROOMS}
    return [
        error
        for error in ours
        if not error.__name__.startswith("_")
        and error is not PratiqueError
        and error.__name__ not in CONTROL_FLOW
    ]


def test_every_error_is_drawn_below_its_base_class(
    defined: list[type[BaseException]],
) -> None:
    assert drawn_tree() == {error.__name__: error.__bases__[0].__name__ for error in defined}


def test_no_two_errors_share_a_name(defined: list[type[BaseException]]) -> None:
    names = [error.__name__ for error in defined]
    assert len(names) == len(set(names))


def test_every_error_is_a_pratique_error(defined: list[type[BaseException]]) -> None:
    assert all(issubclass(error, PratiqueError) for error in defined)
