import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from governance.documents.models import Document
from governance.documents.schema import KINDS, json_schema
from governance.errors import DocumentFault
from tests.support.documents import agreement, node_keys, permit, study, withdrawal

AGREED = agreement()
EXAMPLES: dict[str, Document] = {
    "agreement": AGREED,
    "study": study(AGREED),
    "permit": permit(AGREED, study(AGREED)),
    "withdrawal": withdrawal(study(AGREED)),
    "node": node_keys("DK"),
}


def fields(kind: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(EXAMPLES[kind].canonical())
    return parsed


def test_there_is_an_example_of_every_kind() -> None:
    assert set(EXAMPLES) == set(KINDS)


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_schema_is_one_and_takes_what_is_signed(kind: str) -> None:
    schema = json_schema(kind)
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(fields(kind))


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_schema_refuses_unknown_and_missing_fields(kind: str) -> None:
    schema = Draft202012Validator(json_schema(kind))
    assert not schema.is_valid(fields(kind) | {"another": 1})
    for name in json_schema(kind)["required"]:
        fewer = {key: value for key, value in fields(kind).items() if key != name}
        assert not schema.is_valid(fewer)


def test_fields_are_called_as_people_write_them() -> None:
    properties = json_schema("study")["properties"]
    assert "schema" in properties
    assert "register" in json_schema("study")["$defs"]["Population"]["properties"]


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(DocumentFault, match="did you mean permit"):
        json_schema("permits")
