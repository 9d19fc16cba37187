"""Document versions: which are newer, and which a message, log entry or result may contain."""

from string import ascii_uppercase

import pytest
from pydantic import BaseModel, ValidationError

from protocols.errors import ReasonCode, Refusal
from protocols.proto import round_pb2
from protocols.wire.document_versions import LARGEST_ROSTER, DocumentVersions


@pytest.mark.parametrize(
    ("claimed", "newer"),
    [
        (DocumentVersions(1, 1, {"AT": 1}), ()),
        (DocumentVersions(0, 0, {}), ()),
        (DocumentVersions(2, 1, {"AT": 1}), ("root",)),
        (DocumentVersions(1, 2, {"AT": 1}), ("targets",)),
        (DocumentVersions(1, 1, {"AT": 2}), ("country-AT",)),
        (DocumentVersions(1, 1, {"BE": 1}), ("country-BE",)),
        (DocumentVersions(9, 9, {"AT": 9}), ("country-AT", "root", "targets")),
    ],
)
def test_a_newer_document_is_named(claimed: DocumentVersions, newer: tuple[str, ...]) -> None:
    known = DocumentVersions(1, 1, {"AT": 1})
    assert known.newer_in(claimed) == newer
    assert DocumentVersions.from_proto(claimed.to_proto()) == claimed


NAMES_257 = [first + second for first in ascii_uppercase for second in ascii_uppercase][:257]


@pytest.mark.parametrize(
    "names",
    [
        ["at"],
        ["A"],
        ["ATX"],
        ["A1"],
        [""],
        ["ÄÖ"],
        ["AT", "coordinator"],
        [f"{n:02}" for n in range(3)],
        NAMES_257,
    ],
    ids=lambda names: f"{len(names)} {names[-1]}",
)
def test_document_versions_name_at_most_256_valid_countries(names: list[str]) -> None:
    claimed = round_pb2.DocumentVersions(root=1, targets=1, countries=dict.fromkeys(names, 0))
    with pytest.raises(Refusal, match="not a country") as refusal:
        DocumentVersions.from_proto(claimed)
    assert refusal.value.code is ReasonCode.MALFORMED


def test_a_roster_of_256_countries_is_accepted() -> None:
    names = NAMES_257[:LARGEST_ROSTER]
    claimed = round_pb2.DocumentVersions(countries=dict.fromkeys(names, 0))
    assert len(DocumentVersions.from_proto(claimed).countries) == 256


class Entry(BaseModel):
    documents: DocumentVersions


def test_a_stored_entry_is_read_back_and_nothing_else_is_accepted() -> None:
    versions = DocumentVersions(1, 2, {"DK": 3})
    stored = Entry(documents=versions).model_dump_json()
    assert stored == '{"documents":{"root":1,"targets":2,"countries":{"DK":3}}}'
    assert Entry.model_validate_json(stored).documents == versions
    for wrong in ('{"root":-1,"targets":2}', '{"root":1,"targets":2,"other":3}', '{"root":1}'):
        with pytest.raises(ValidationError):
            Entry.model_validate_json(f'{{"documents":{wrong}}}')


def test_every_version_is_listed_by_name() -> None:
    assert DocumentVersions(1, 2, {"NO": 4, "DK": 3}).by_name() == {
        "root": 1,
        "targets": 2,
        "DK": 3,
        "NO": 4,
    }
