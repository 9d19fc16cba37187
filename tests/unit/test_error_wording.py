"""The wording of errors: `what` begins with a capital, `why` and `fix` with a small letter.

None of them ends with a full stop: `PratiqueError` combines them into one sentence or three.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("keys", "protocols", "governance", "client", "server")
ERRORS = (
    "Fault",
    "Refusal",
    "Refused",
    "Failed",
    "Void",
    "Superseded",
    "Unpublished",
    "PratiqueError",
)
"""The endings of the project's error names."""
PARTS = ("what", "why", "fix")
Helpers = dict[str, dict[int | str, str]]
"""Functions that raise an error from their arguments: the part of each argument."""
NAMES = frozenset({"Flower", "Python", "Cedar"})
"""Names that always begin with a capital; an acronym is recognised by its letters."""


class Text(NamedTuple):
    """One part of an error in the code: its literal beginning and end."""

    location: str
    part: str
    begins: str
    ends: str


def literal(node: ast.expr) -> Iterator[tuple[str, str]]:
    """Yield the literal beginning and end of a text, for each text that it may be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value, node.value
    elif isinstance(node, ast.JoinedStr) and node.values:
        first, last = (next(literal(node.values[at]), ("", "")) for at in (0, -1))
        yield first[0], last[1]
    elif isinstance(node, ast.IfExp):
        yield from literal(node.body)
        yield from literal(node.orelse)


def is_error(call: ast.Call) -> bool:
    return ast.unparse(call.func).endswith(ERRORS)


def given_parts(call: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    """Yield the parts that an error gets; a refusal has its code first."""
    yield from (
        (argument.arg, argument.value) for argument in call.keywords if argument.arg in PARTS
    )
    after = 1 if ast.unparse(call.func).endswith("Refusal") else 0
    yield from (("what", argument) for argument in call.args[after : after + 1])


def helpers_of(tree: ast.Module) -> Helpers:
    """Return the functions of a module that make an error from their own arguments."""
    helpers: Helpers = {}
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        arguments = [*function.args.args, *function.args.kwonlyargs]
        names = [argument.arg for argument in arguments if argument.arg != "self"]
        calls = [
            node for node in ast.walk(function) if isinstance(node, ast.Call) and is_error(node)
        ]
        for part, value in (pair for call in calls for pair in given_parts(call)):
            if isinstance(value, ast.Name) and value.id in names:
                known = helpers.setdefault(function.name, {})
                known |= {value.id: part, names.index(value.id): part}
    return helpers


def parts(call: ast.Call, helpers: Helpers) -> Iterator[tuple[str, ast.expr]]:
    """Yield the parts of the error that a call makes, if it makes one."""
    if is_error(call):
        yield from given_parts(call)
        return
    known = helpers.get(ast.unparse(call.func).removeprefix("self."), {})
    named = {argument.arg: argument.value for argument in call.keywords if argument.arg}
    for name_or_position, value in (*enumerate(call.args), *named.items()):
        if name_or_position in known:
            yield known[name_or_position], value


def texts_of(file: Path, tree: ast.Module, helpers: Helpers) -> Iterator[Text]:
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        for part, value in parts(call, helpers):
            for begins, ends in literal(value):
                yield Text(f"{file.relative_to(ROOT)}:{value.lineno}", part, begins, ends)


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


def imported(tree: ast.Module, helpers: dict[str, Helpers]) -> Helpers:
    """Return the helpers of other modules that a module imports."""
    froms = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    names = (
        (helpers.get(node.module or "", {}), alias.name) for node in froms for alias in node.names
    )
    return {name: known[name] for known, name in names if name in known}


def all_texts() -> Iterator[Text]:
    files = [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))]
    trees = {file: ast.parse(file.read_text()) for file in files}
    helpers = {module_of(file): helpers_of(tree) for file, tree in trees.items()}
    for file, tree in trees.items():
        yield from texts_of(file, tree, imported(tree, helpers) | helpers[module_of(file)])


@pytest.fixture(scope="module")
def texts() -> list[Text]:
    return list(all_texts())


def is_name(text: str) -> bool:
    """Return whether a text begins with a name that is never changed: GetRun, state.db, δ."""
    first = text.split(maxsplit=1)[0].rstrip(".,:;").removesuffix("'s")
    signs = any(sign in first for sign in "./_-") or not first.isascii()
    return signs or first in NAMES or first[1:] != first[1:].lower()


def test_enough_errors_are_found(texts: list[Text]) -> None:
    assert min(sum(t.part == part for t in texts) for part in ("what", "why", "fix")) > 100


def test_the_what_part_begins_with_a_capital(texts: list[Text]) -> None:
    begun = [t for t in texts if t.part == "what" and t.begins[:1].islower()]
    assert [t for t in begun if not is_name(t.begins)] == []


@pytest.mark.parametrize("part", ["why", "fix"])
def test_the_why_and_fix_parts_begin_with_a_small_letter(texts: list[Text], part: str) -> None:
    begun = [t for t in texts if t.part == part and t.begins[:1].isupper()]
    assert [t for t in begun if not is_name(t.begins)] == []


def test_no_part_ends_with_a_full_stop(texts: list[Text]) -> None:
    assert [t for t in texts if t.ends.endswith(".")] == []
