"""Every enumerated kind of event is written somewhere in the product."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from governance.audit import events
from governance.audit.events import EventKind

ROOT = Path(__file__).parents[4]
ROOMS = ("keys", "protocols", "governance", "client", "server")


def kinds_used_in(source: str) -> Iterator[str]:
    """Yield the members of EventKind that a module uses, except in comparisons."""
    tree = ast.parse(source)
    compared = {
        id(node)
        for comparison in ast.walk(tree)
        if isinstance(comparison, ast.Compare)
        for node in ast.walk(comparison)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or id(node) in compared:
            continue
        if ast.unparse(node.value) == "EventKind":
            yield node.attr


@pytest.fixture(scope="module")
def kinds_written() -> frozenset[str]:
    files = (file for room in ROOMS for file in (ROOT / room).rglob("*.py"))
    others = (file for file in files if file != Path(events.__file__))
    return frozenset(name for file in others for name in kinds_used_in(file.read_text()))


@pytest.mark.parametrize("kind", EventKind)
def test_every_kind_is_written_by_the_product(
    kind: EventKind, kinds_written: frozenset[str]
) -> None:
    assert kind.name in kinds_written


def test_a_kind_that_is_only_compared_is_not_written() -> None:
    assert list(kinds_used_in("if kind == EventKind.NODE_STARTED: pass")) == []
    assert list(kinds_used_in("log.append(Event(kind=EventKind.NODE_STARTED))")) == ["NODE_STARTED"]
