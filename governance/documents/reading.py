"""Reads documents and settings that people write as YAML; reports problems by line and field.

The YAML itself, and what is refused in it, is `governance.documents.yaml_text`.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from governance.documents.models import MAX_BYTES, Document
from governance.documents.problems import sentences
from governance.documents.yaml_text import MAX_VALUES, YamlText, parse_yaml
from governance.errors import DocumentFault
from governance.runtime.text_files import read_bounded
from governance.runtime.wording import with_article
from keys.errors import reason_of

M = TypeVar("M", bound=BaseModel)
D = TypeVar("D", bound=Document)
Completion = Callable[[Mapping[str, Any]], dict[str, Any]]


def read_document(kind: type[D], text: bytes, source: str, complete: Completion = dict) -> D:
    """Return the document that the YAML (or JSON) text holds; `source` names it in messages.

    `complete` may add fields that the text leaves out, such as keys already known.

    Raises DocumentFault naming each problem: line, field, what is expected.
    """
    parsed = _parsed(text, source)
    values = parsed.values
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
        raise _unusable(source, "\n".join(sentences(kind, error, values, parsed.places))) from None


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


def read_settings(
    model: type[M], path: Path, *, largest: int = MAX_BYTES, most_values: int = MAX_VALUES
) -> M:
    """Return the settings, or the data dictionary, in a YAML file of at most `largest` bytes.

    Raises OSError, or ValueError naming each problem: line, field, what is expected.
    """
    parsed = parse_yaml(read_bounded(path, largest), most_values=most_values)
    try:
        return model.model_validate(parsed.values)
    except ValidationError as error:
        raise ValueError("; ".join(sentences(model, error, parsed.values, parsed.places))) from None


def _parsed(text: bytes, source: str) -> YamlText:
    if len(text) > MAX_BYTES:
        raise _unusable(source, f"it is larger than {MAX_BYTES // 1024} kB")
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise _unusable(source, str(error)) from None


def _unusable(source: str, why: str) -> DocumentFault:
    return DocumentFault(
        f"The file {source} cannot be used", why=why, fix="correct it and try again"
    )
