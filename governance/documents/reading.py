"""Read documents from YAML that people write; report problems by file, line and field.

The YAML is the core schema of YAML 1.2: `NO` is Norway and not false, `1e-5` is a number, dates
are text. Anchors, aliases, tags and repeated keys are refused: the text means what it shows.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from governance.documents.models import MAX_BYTES, Document
from governance.documents.problems import sentences
from governance.errors import DocumentFault
from governance.runtime.wording import with_article
from keys.errors import reason_of

M = TypeVar("M", bound=BaseModel)
D = TypeVar("D", bound=Document)
FieldPath = tuple[str | int, ...]
Completion = Callable[[Mapping[str, Any]], dict[str, Any]]

DEEPEST = 20
"""Levels of nesting; the deepest document has eight."""
MAX_NODES = 20_000
RESOLVERS = {
    "null": (r"~|null|Null|NULL|", [*"~nN", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    "int": (r"[-+]?(0|[1-9][0-9]{0,29})", [*"-+0123456789"]),
    "float": (
        r"[-+]?(\.[0-9]{1,30}|(0|[1-9][0-9]{0,29})(\.[0-9]{0,30})?)([eE][-+]?[0-9]{1,3})?",
        [*"-+.0123456789"],
    ),
}
"""YAML 1.2, 10.3.2 (core schema), without octal, hexadecimal, infinity, not-a-number."""


class _CoreLoader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2 in place of those of 1.1."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, (_pattern, _first) in RESOLVERS.items():
    _CoreLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first
    )


@dataclass
class _Tree:
    """Plain values of a YAML text, and the line of each field."""

    source: str
    lines: dict[FieldPath, int] = field(default_factory=dict)

    def fault(self, line: int, why: str) -> DocumentFault:
        return _unusable(self.source, f"line {line + 1}: {why}")

    def values(self, loader: _CoreLoader, node: Node, path: FieldPath = ()) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, MappingNode):
            return self._mapping(loader, node, path)
        if isinstance(node, SequenceNode):
            return [self.values(loader, item, (*path, i)) for i, item in enumerate(node.value)]
        return loader.construct_object(node)

    def _mapping(self, loader: _CoreLoader, node: MappingNode, path: FieldPath) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name, value in node.value:
            if not isinstance(name, ScalarNode) or not name.tag.endswith(":str"):
                raise self.fault(name.start_mark.line, "a field's name must be text")
            if name.value in fields:
                raise self.fault(name.start_mark.line, f"the field {name.value} is here twice")
            self.lines[*path, name.value] = name.start_mark.line + 1
            fields[name.value] = self.values(loader, value, (*path, name.value))
        return fields


def read_document(kind: type[D], text: bytes, source: str, complete: Completion = dict) -> D:
    """Return the document that the YAML (or JSON) text holds; `source` names it in messages.

    `complete` may add fields that the text leaves out, such as keys already known.

    Raises DocumentFault naming each problem: line, field, what is expected.
    """
    tree = _Tree(source)
    values = _parse(tree, text)
    if not isinstance(values, dict):
        raise _unusable(source, "expected fields, each written `name: value`")
    if "kind" in values and values["kind"] != kind.model_fields["kind"].default:
        raise _unusable(
            source,
            f"it is {with_article(str(values['kind']))}, not {with_article(kind.name_in_messages)}",
        )
    values = complete(values)
    try:
        return kind.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise _unusable(source, "\n".join(sentences(kind, error, values, tree.lines))) from None


def read_file(kind: type[D], path: Path) -> D:
    """Return the document in a file. Raises DocumentFault."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DocumentFault(
            f"The file {path} cannot be read",
            why=reason_of(error),
            fix="check the name of the file and that you may read it",
        ) from None
    return read_document(kind, text, path.name)


def read_settings(model: type[M], text: str) -> M:
    """Return the settings, or the data dictionary, in a YAML text of any common form.

    Raises ValueError naming each problem: line, field, what is expected.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"line {line}: {_grammar(error)}") from None
    except (yaml.YAMLError, RecursionError):
        raise ValueError("it is not YAML") from None
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ValueError("; ".join(sentences(model, error, values, _lines(text)))) from None


def _lines(text: str) -> dict[FieldPath, int]:
    """Return the line of each field of a YAML text that was parsed before."""
    lines: dict[FieldPath, int] = {}
    seen: set[int] = set()  # an alias is the node that it refers to

    def visit(node: Node, path: FieldPath) -> None:
        lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in seen:
            return
        seen.add(id(node))
        if isinstance(node, SequenceNode):
            for index, item in enumerate(node.value):
                visit(item, (*path, index))
        elif isinstance(node, MappingNode):
            for name, value in node.value:
                if isinstance(name, ScalarNode):
                    lines[*path, name.value] = name.start_mark.line + 1
                    visit(value, (*path, name.value))

    if (root := yaml.compose(text, Loader=yaml.SafeLoader)) is not None:
        visit(root, ())
    return lines


def _parse(tree: _Tree, text: bytes) -> Any:
    if len(text) > MAX_BYTES:
        raise _unusable(tree.source, f"it is larger than {MAX_BYTES // 1024} kB")
    try:
        decoded = text.decode("utf-8")
        _check_events(tree, yaml.parse(decoded, Loader=_CoreLoader))
        loader = _CoreLoader(decoded)
        node = loader.get_single_node()
        return None if node is None else tree.values(loader, node)
    except UnicodeDecodeError:
        raise _unusable(tree.source, "it is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line if error.problem_mark else 0
        raise tree.fault(line, _grammar(error)) from None
    except yaml.YAMLError as error:
        raise _unusable(tree.source, " ".join(str(error).split())) from None


def _grammar(error: yaml.MarkedYAMLError) -> str:
    context = f"{error.context}, " if error.context else ""
    return f"the YAML is not well formed: {context}{error.problem}"


def _check_events(tree: _Tree, events: Iterable[yaml.Event]) -> None:
    depth = documents = 0
    for count, event in enumerate(events):
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        why = _refused(event, depth, documents, count)
        if why:
            raise tree.fault(event.start_mark.line if event.start_mark else 0, why)


def _refused(event: yaml.Event, depth: int, documents: int, count: int) -> str:
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        return "anchors (&) and aliases (*) are not allowed; write the text in full"
    if getattr(event, "tag", None):
        return "tags (!) are not allowed; remove the tag"
    if depth > DEEPEST or count > MAX_NODES:
        return "it is nested too deeply, or contains too many values"
    return "a file may contain only one document" if documents > 1 else ""


def _unusable(source: str, why: str) -> DocumentFault:
    return DocumentFault(
        f"The file {source} cannot be used", why=why, fix="correct it and try again"
    )
