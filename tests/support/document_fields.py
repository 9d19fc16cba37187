"""Every field of a document, and the document with another value in it."""

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, TypeVar

from pydantic import BaseModel

AnyModel = TypeVar("AnyModel", bound=BaseModel)
Path = tuple[str | int, ...]
Put = Callable[[Any], Any]
"""Returns the whole with another value at one place. Nothing checks whether it is valid then."""


def places(
    whole: Any, path: Path = (), put: Put = lambda value: value
) -> Iterator[tuple[Path, Any, Put]]:
    """Yield the path of every field and every item, its value, and how to replace it."""
    if path:
        yield path, whole, put
    if isinstance(whole, BaseModel):
        for name in type(whole).model_fields:
            inner = _into_field(whole, name, put)
            yield from places(getattr(whole, name), (*path, name), inner)
    elif isinstance(whole, Mapping):
        for name in whole:
            yield from places(whole[name], (*path, name), _into_mapping(whole, name, put))
    elif isinstance(whole, tuple):
        for position, item in enumerate(whole):
            yield from places(item, (*path, position), _into_tuple(whole, position, put))


def _into_field(model: BaseModel, name: str, put: Put) -> Put:
    return lambda value: put(model.model_copy(update={name: value}))


def _into_mapping(mapping: Mapping[str, Any], name: str, put: Put) -> Put:
    return lambda value: put({**mapping, name: value})


def _into_tuple(values: tuple[Any, ...], position: int, put: Put) -> Put:
    return lambda value: put((*values[:position], value, *values[position + 1 :]))


def others(value: Any) -> list[Any]:
    """Return other values of the same kind, the smallest change first; none for a group."""
    if isinstance(value, Enum):
        return [member for member in type(value) if member is not value]
    if isinstance(value, tuple):
        return [value[:-1]] if value else []
    return next((change(value) for kind, change in CHANGES.items() if isinstance(value, kind)), [])


CODES = ("53-1-a", "PUBHLTH", "DUO:0000042", "medical-mortality-registry", "HMARKT")
"""Values of fields that are looked up in a table of codes."""
CHANGES: Mapping[type, Callable[[Any], list[Any]]] = {
    bool: lambda value: [not value],
    int: lambda value: [value + 1],
    float: lambda value: [math.nextafter(value, math.inf), -value],
    datetime: lambda value: [value + timedelta(seconds=1)],
    str: lambda value: [f"{value}x", *(code for code in CODES if code != value)],
    type(None): lambda _: [0.5, "other"],
}
