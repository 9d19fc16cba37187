import csv
import json
from pathlib import Path

import pytest

from governance.documents import purposes
from governance.documents.purposes import (
    DATA_CATEGORIES,
    DUO_TERMS,
    EHDS_CODES,
    EHDS_PROHIBITED,
    EHDS_PURPOSES,
    PURPOSE_OF_USE,
    nearest,
    require,
    with_ancestors,
)
from governance.runtime.safe_text import is_plain

CODES = Path(__file__).parents[5] / "shared" / "codes"
TABLES = [EHDS_PURPOSES, EHDS_PROHIBITED, PURPOSE_OF_USE, DUO_TERMS, DATA_CATEGORIES]

needs_sources = pytest.mark.skipif(not CODES.exists(), reason="the source lists are not here")


def rows(name: str) -> list[dict[str, str]]:
    with (CODES / name).open() as file:
        return list(csv.DictReader(file))


@needs_sources
def test_hl7_codes_and_their_tree_are_those_of_the_source() -> None:
    source = {row["code"]: row["parent"] for row in rows("hl7_purpose_of_use.csv")}
    del source["PurposeOfUse"]
    ours = {code.code: code.parent or "PurposeOfUse" for code in PURPOSE_OF_USE.values()}
    assert ours == source


@needs_sources
def test_duo_terms_are_those_of_the_source() -> None:
    assert set(DUO_TERMS) == {row["id"] for row in rows("duo.csv")}


@needs_sources
def test_data_categories_are_those_of_the_source() -> None:
    assert set(DATA_CATEGORIES) == {row["code"] for row in rows("ehds_art51_categories.csv")}


@needs_sources
def test_ehds_codes_are_those_of_the_source() -> None:
    source = json.loads((CODES / "ehds_art53_54.json").read_text())
    top = {entry["code"] for entry in source["purposes"]}
    below = {sub["code"] for entry in source["purposes"] for sub in entry.get("sub", ())}
    assert set(EHDS_PURPOSES) == top | below
    articles = {entry["code"] for entry in source["prohibited"] if entry["code"].startswith("54")}
    assert set(EHDS_PROHIBITED) == articles


@pytest.mark.parametrize("table", TABLES)
def test_every_code_has_a_sentence_and_a_known_parent(table: dict[str, purposes.Code]) -> None:
    for name, code in table.items():
        assert name == code.code
        assert is_plain(code.sentence)
        assert code.parent is None or code.parent in table


def test_ancestors_come_nearest_first_and_end() -> None:
    assert with_ancestors(PURPOSE_OF_USE, "CLINTRCHNPC") == ("CLINTRCHNPC", "CLINTRCH", "HRESCH")
    assert with_ancestors(EHDS_CODES, "53-1-e-ii") == ("53-1-e-ii", "53-1-e")
    assert with_ancestors(EHDS_CODES, "54-a") == ("54-a",)


@pytest.mark.parametrize(
    ("word", "meant"),
    [("hresch", "HRESCH"), ("HRESEARCH", "HRESCH"), ("ML-TRAINING", "MLTRAINING")],
)
def test_an_unknown_code_is_refused_with_the_nearest(word: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {meant}"):
        require(PURPOSE_OF_USE, "an HL7 PurposeOfUse code", word)


def test_a_known_code_is_returned_and_a_distant_one_gets_no_suggestion() -> None:
    assert require(PURPOSE_OF_USE, "a code", "HRESCH") == "HRESCH"
    assert nearest("qqqqqq", PURPOSE_OF_USE) == ""


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[2J", "a\u202eb", "a\u200bb", "\ufeffa", "a\x85"])
def test_hidden_characters_are_not_plain(text: str) -> None:
    assert not is_plain(text)


@pytest.mark.parametrize("text", ["Gesundheitsbehörde", "ε ≤ 1", "Ministério da Saúde", "مرحبا"])
def test_other_scripts_are_plain(text: str) -> None:
    assert is_plain(text)
