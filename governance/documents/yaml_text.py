"""Parses the YAML that people write: the core schema of YAML 1.2, and nothing that surprises.

`NO` is Norway and not false, `010` and `12:30` are text, `1e-5` is a number, dates are text. Names
of fields are the text as written. Anchors, aliases, tags, repeated names and invisible line breaks
are refused: the text means what it shows. Values and nesting are bounded while the events of the
scanner arrive, so nothing large or deep is ever built.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from governance.runtime.safe_text import escaped
from governance.runtime.text_files import decoded

FieldPath = tuple[str | int, ...]
Place = tuple[int, int]
"""Line and column, counted from 1."""

DEEPEST = 20
"""Levels of nesting; the deepest document has eight."""
MAX_VALUES = 20_000
NULLS = frozenset({"", "~", "null", "Null", "NULL"})
TRUTHS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,29})", re.ASCII)
NUMBER = re.compile(
    r"[-+]?(\.[0-9]{1,30}|(0|[1-9][0-9]{0,29})(\.[0-9]{0,30})?)([eE][-+]?[0-9]{1,3})?", re.ASCII
)
"""YAML 1.2, 10.3.2 (core schema), without octal, hexadecimal, infinity, not-a-number."""
HIDDEN_BREAK = re.compile("[\x85\u2028\u2029]")
"""Line breaks in YAML 1.1 and ordinary characters in YAML 1.2; no editor shows which is meant."""
VERSION = (1, 2)
SHOWN = 60


class PlainText(str):
    """A text that was written without quotes."""

    __slots__ = ()


class WrittenInteger(int):
    """A whole number, and its digits as written."""

    written: str


class WrittenNumber(float):
    """A number with a fraction or an exponent, and its digits as written."""

    written: str


@dataclass(frozen=True)
class YamlText:
    """The values of a YAML text, and the place of each field."""

    values: Any
    places: Mapping[FieldPath, Place]


def parse_yaml(data: bytes, *, most_values: int = MAX_VALUES) -> YamlText:
    """Return what the text says. Raises ValueError that names line and column.

    The caller bounds the bytes.
    """
    text = decoded(data)
    if hidden := HIDDEN_BREAK.search(text):
        raise _fault(_place_at(text, hidden.start()), _not_allowed(hidden.group()))
    try:
        return _Tree(most_values).built(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _fault(_place(mark), _grammar(error)) from None
    except yaml.reader.ReaderError as error:
        place = _place_at(text, error.position)
        raise _fault(place, _not_allowed(text[error.position : error.position + 1])) from None
    except yaml.YAMLError:
        raise ValueError("it is not YAML") from None


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.2 would read as a number, and YAML 1.1 as text, such as `1e5`."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(rf"^(?:{NUMBER.pattern})$"), [*"-+.0123456789"]
)


def dump_yaml(values: Mapping[str, Any]) -> bytes:
    """Return plain values as YAML in UTF-8 that `parse_yaml` reads back as they are."""
    text: str = yaml.dump(dict(values), Dumper=_Dumper, allow_unicode=True, sort_keys=False)
    return text.encode()


@dataclass
class _Open:
    """A list or mapping that is being read; `name` is the field whose value comes next."""

    content: Any
    path: FieldPath
    name: str | None = None


@dataclass
class _Tree:
    """Builds values from events, without recursion."""

    most_values: int
    _places: dict[FieldPath, Place] = field(default_factory=dict)
    _stack: list[_Open] = field(default_factory=list)
    _documents: list[Any] = field(default_factory=list)

    def built(self, events: Iterable[yaml.Event]) -> YamlText:
        for count, event in enumerate(events):
            self._refuse(event, count)
            if isinstance(event, yaml.CollectionEndEvent):
                self._stack.pop()
            elif isinstance(event, yaml.NodeEvent):
                self._take(event)
        return YamlText(self._documents[0] if self._documents else None, self._places)

    def _refuse(self, event: yaml.Event, count: int) -> None:
        starts = isinstance(event, yaml.DocumentStartEvent)
        why = _unsupported(event)
        if len(self._stack) > DEEPEST or count > self.most_values:
            why = "it is nested too deeply, or contains too many values"
        if starts and self._documents:
            why = "a file may contain only one document"
        if why:
            raise _fault(_place(event.start_mark), why)

    def _take(self, event: yaml.NodeEvent) -> None:
        parent = self._stack[-1] if self._stack else None
        if parent is not None and isinstance(parent.content, dict) and parent.name is None:
            self._name(parent, event)
            return
        path: FieldPath = ()
        value = _value(event)
        if parent is None:
            self._documents.append(value)
        elif parent.name is None:
            path = (*parent.path, len(parent.content))
            parent.content.append(value)
        else:
            path = (*parent.path, parent.name)
            parent.content[parent.name], parent.name = value, None
        self._places.setdefault(path, _place(event.start_mark))
        if isinstance(event, yaml.CollectionStartEvent):
            self._stack.append(_Open(value, path))

    def _name(self, parent: _Open, event: yaml.NodeEvent) -> None:
        place = _place(event.start_mark)
        if not isinstance(event, yaml.ScalarEvent):
            raise _fault(place, "a field's name must be text")
        value, name = _value(event), event.value
        if value is None or isinstance(value, bool):
            raise _fault(place, f"`{name}` is read as {_meaning(value)}; write it in quotes")
        if name in parent.content:
            raise _fault(place, f"the field {escaped(name[:SHOWN])} is here twice")
        self._places[*parent.path, name] = place
        parent.name = name


def _value(event: yaml.NodeEvent) -> Any:
    if isinstance(event, yaml.ScalarEvent):
        return event.value if event.style else _plain(event.value)
    return {} if isinstance(event, yaml.MappingStartEvent) else []


def _plain(text: str) -> Any:
    if text in NULLS:
        return None
    if text in TRUTHS:
        return TRUTHS[text]
    kind = WrittenInteger if INTEGER.fullmatch(text) else WrittenNumber
    if kind is WrittenNumber and not NUMBER.fullmatch(text):
        return PlainText(text)
    number = kind(text)
    number.written = text
    return number


def _meaning(value: object) -> str:
    return "nothing" if value is None else str(value).lower()


def _unsupported(event: yaml.Event) -> str:
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        return "anchors (&) and aliases (*) are not allowed; write the text in full"
    if getattr(event, "tag", None):
        return "tags (!) are not allowed; remove the tag"
    if isinstance(event, yaml.DocumentStartEvent) and (
        event.tags or event.version not in (None, VERSION)
    ):
        return "directives (%) are not allowed; the text is read as YAML 1.2"
    return ""


def _grammar(error: yaml.MarkedYAMLError) -> str:
    if "'\\t'" in str(error.problem):
        return "a tab is here; write blanks instead"
    context = f"{error.context}, " if error.context else ""
    return f"the YAML is not well formed: {context}{error.problem}"


def _not_allowed(character: str) -> str:
    return f"the character U+{ord(character):04X} is not allowed"


def _place(mark: Any) -> Place:
    """Return the place of a mark of the scanner, of which there may be none."""
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _place_at(text: str, position: int) -> Place:
    before = text[:position]
    return before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1


def _fault(place: Place, why: str) -> ValueError:
    line, column = place
    return ValueError(f"line {line}, column {column}: {why}")
