"""Describe what is wrong with a document: line, field, what is expected, what to do."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from governance.documents.purposes import nearest
from governance.runtime.safe_text import escaped
from protocols.tasks.features import LEVEL
from protocols.tasks.step_size import AUTO

FieldPath = tuple[str | int, ...]
Context = Mapping[str, Any]
Places = Mapping[FieldPath, tuple[int, int]]
"""Line and column of each field, counted from 1."""

SHOWN = 60
"""Characters of a wrong value that are shown."""
MAX_PROBLEMS = 20

LEVEL_IN_WORDS = (
    "a level: letters A to Z, digits, blanks and _ . + / < > -, at most 64, the first a letter or "
    "digit"
)
PATTERNS = {
    r"^[a-z0-9][a-z0-9-]{0,62}$": "lower-case letters, digits and hyphens",
    r"^[a-z][a-z0-9_]{0,63}$": "lower-case letters, digits and underscores",
    r"^[a-z]+/[a-z][a-z0-9-]*$": "a task kind such as train/glm",
    r"^[a-z][a-z0-9-]{0,62}$": "lower-case letters, digits and hyphens",
    r"^[a-z][a-z0-9_]{0,31}$": "lower-case letters, digits and underscores",
    r"^[A-Za-z0-9_][A-Za-z0-9_.]{0,127}$": "letters, digits, underscores and points",
    r"^sha256:[0-9a-f]{64}$": "a digest: sha256: and 64 hexadecimal digits",
    r"^[a-z0-9][a-z0-9./-]{0,126}$": "a log origin such as example.org/dk/log",
    LEVEL: LEVEL_IN_WORDS,
    r"^(127(\.[0-9]{1,3}){3}|\[::1\]):[0-9]{1,5}$": "a loopback address such as 127.0.0.1:9464",
    r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$": "host and port, such as 127.0.0.1:7443",
}

EXPECTED: dict[str, Callable[[Context], str]] = {
    "string_type": lambda _: "text",
    "int_type": lambda _: "a whole number",
    "int_from_float": lambda _: "a whole number",
    "float_type": lambda _: "a number",
    "finite_number": lambda _: "a finite number",
    "int_parsing": lambda _: "a whole number",
    "float_parsing": lambda _: "a number",
    "bool_type": lambda _: "true or false",
    "bool_parsing": lambda _: "true or false",
    "path_type": lambda _: "a path",
    "list_type": lambda _: "a list",
    "mapping_type": lambda _: "fields, each written `name: value`",
    "tuple_type": lambda _: "a list",
    "model_type": lambda _: "fields, each written `name: value`",
    "model_attributes_type": lambda _: "fields, each written `name: value`",
    "dict_type": lambda _: "fields, each written `name: value`",
    "greater_than": lambda c: f"a number above {c['gt']:g}",
    "greater_than_equal": lambda c: f"a number of at least {c['ge']:g}",
    "less_than": lambda c: f"a number below {c['lt']:g}",
    "less_than_equal": lambda c: f"a number of at most {c['le']:g}",
    "string_too_short": lambda c: f"at least {c['min_length']} characters",
    "string_too_long": lambda c: f"at most {c['max_length']} characters",
    "too_short": lambda c: f"at least {c['min_length']} of them",
    "too_long": lambda c: f"at most {c['max_length']} of them",
    "literal_error": lambda c: str(c["expected"]),
    "enum": lambda c: str(c["expected"]),
    "union_tag_invalid": lambda c: f"one of {c['expected_tags']}",
    "string_pattern_mismatch": lambda c: PATTERNS.get(c["pattern"], "another form of text"),
    "datetime_type": lambda _: "a date, such as 2026-12-31T23:59:59Z",
}
MAY_BE_CHOSEN = {("task", "learning_rate"), ("task", "rounds")}
"""Numbers of a study that a draft may leave to `study check`."""

PLAIN = {
    "missing": "this field is missing; add it",
    "union_tag_not_found": "the field `kind` is missing; add it",
    "json_invalid": "it is not JSON",
}


def sentences(
    model: type[BaseModel], error: ValidationError, values: Any, places: Places
) -> Iterator[str]:
    """Yield one sentence for each problem, in the order of the fields; at most 20.

    `values` are the values that were read, `places` where each field is in the text.
    """
    schema = _schema_of(model)
    problems = [p for p in error.errors(include_url=False) if not _only_follows(p)]
    for problem in problems[:MAX_PROBLEMS]:
        path = (*_written_path(problem["loc"], values), *_tag_of(problem))
        yield f"{_place(path, places)}{_text_of(problem, schema, path, values)}"
    if len(problems) > MAX_PROBLEMS:
        yield f"and {len(problems) - MAX_PROBLEMS} more"


def first_problem(model: type[BaseModel], error: ValidationError) -> str:
    """Return what is wrong with the first wrong field, without its name."""
    problem = error.errors(include_url=False)[0]
    return _text_of(problem, _schema_of(model), problem["loc"], None)


def _tag_of(problem: ErrorDetails) -> FieldPath:
    """Return the field whose value names no member of a union; none for other problems."""
    if problem["type"] != "union_tag_invalid":
        return ()
    return (problem["ctx"]["discriminator"].strip("'"),)


def _only_follows(problem: ErrorDetails) -> bool:
    """Whether a list counts as too short only because problems in it are reported already."""
    short, value = problem["type"] == "too_short", problem["input"]
    return short and isinstance(value, list) and len(value) >= problem["ctx"]["min_length"]


@cache
def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _written_path(loc: FieldPath, values: Any) -> FieldPath:
    """Drop what pydantic adds to a location: the names of a union's members."""
    path: list[str | int] = []
    for position, step in enumerate(loc):
        inside = _child(values, step)
        if inside is not _ABSENT or position == len(loc) - 1:
            path.append(step)
        values = inside if inside is not _ABSENT else values
    return tuple(path)


_ABSENT = object()


def _child(values: Any, step: str | int) -> Any:
    if isinstance(values, dict):
        return values.get(step, _ABSENT)
    if isinstance(values, list) and isinstance(step, int) and step < len(values):
        return values[step]
    return _ABSENT


def _place(path: FieldPath, places: Places) -> str:
    known = next((path[:n] for n in range(len(path), -1, -1) if path[:n] in places), ())
    line, column = places.get(known, (0, 0))
    position = f"line {line}, column {column}, " if line and path else ""
    name = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return f"{position}{escaped(name.lstrip('.'))}: " if path else ""


def _text_of(problem: ErrorDetails, schema: dict[str, Any], path: FieldPath, values: Any) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        known = _fields_at(schema, path[:-1], values)
        choice = nearest(str(path[-1]), known) or f"; known fields are {', '.join(sorted(known))}"
        return f"there is no such field here{choice}"
    if kind in PLAIN:
        return PLAIN[kind]
    if kind in EXPECTED:
        choice = f", or {AUTO}" if path in MAY_BE_CHOSEN else ""
        return f"expected {EXPECTED[kind](context)}{choice}, found {_found(problem)}"
    return problem["msg"].removeprefix("Value error, ")


def _found(problem: ErrorDetails) -> str:
    kind, value = problem["type"], problem["input"]
    if kind in {"too_short", "too_long"} and isinstance(value, list):
        return str(len(value))
    return _shown(problem["ctx"]["tag"] if kind == "union_tag_invalid" else value)


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "fields"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _fields_at(schema: dict[str, Any], path: FieldPath, values: Any) -> dict[str, Any]:
    """Return the fields that a document may have at a path, by name."""
    current: dict[str, Any] = _resolved(schema, schema, values)
    for step in path:
        values = _child(values, step)
        inner = current.get("items", {}) if isinstance(step, int) else _property(current, step)
        current = _resolved(schema, inner, values)
    known: dict[str, Any] = current.get("properties", {})
    return known


def _property(current: dict[str, Any], name: str) -> dict[str, Any]:
    schema: dict[str, Any] = current.get("properties", {}).get(name, {})
    return schema


def _resolved(schema: dict[str, Any], current: dict[str, Any], values: Any) -> dict[str, Any]:
    """Follow references, and choose the member of a union to which the values belong."""
    if "$ref" in current:
        name = current["$ref"].rpartition("/")[2]
        return _resolved(schema, schema["$defs"][name], values)
    if "discriminator" in current:
        tag = _child(values, current["discriminator"]["propertyName"])
        target = current["discriminator"]["mapping"].get(tag)
        return _resolved(schema, {"$ref": target}, values) if target else {}
    members = [m for m in current.get("anyOf", ()) if m.get("type") != "null"]
    return _resolved(schema, members[0], values) if members else current
