"""YAML 1.2 of people: what a text means, and what is refused before anything is built."""

from typing import Any

import pytest

from governance.documents.yaml_text import DEEPEST, PlainText, dump_yaml, parse_yaml


def value(text: str) -> Any:
    return parse_yaml(f"a: {text}\n".encode()).values["a"]


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("NO", "NO"), ("yes", "yes"), ("on", "on"), ("010", "010"), ("0o10", "0o10"),
        ("0x10", "0x10"), ("12:30", "12:30"), ("1_000", "1_000"), ("2026-01-31", "2026-01-31"),
        (".inf", ".inf"), (".nan", ".nan"), ("=", "="), ("<<", "<<"), ("'1'", "1"),
        ('"true"', "true"),
        ("true", True), ("False", False), ("~", None), ("", None), ("null", None),
        ("7", 7), ("-7", -7), ("1e-5", 1e-5), ("1e5", 1e5), (".5", 0.5), ("+1.", 1.0),
        ("9" * 40, "9" * 40), ("1e9999", "1e9999"),
    ],
)  # fmt: skip
def test_a_scalar_means_what_yaml_1_2_says(text: str, meaning: Any) -> None:
    found = value(text)
    assert found == meaning
    assert isinstance(found, type(meaning))


def test_numbers_and_plain_texts_remember_how_they_were_written() -> None:
    assert value("1.50").written == "1.50"
    assert value("1e3").written == "1e3"
    assert isinstance(value("yes"), PlainText)
    assert not isinstance(value("'yes'"), PlainText)


def test_names_are_the_text_as_written() -> None:
    parsed = parse_yaml(b"{010: a, 1.0: b, 12:30: c, no: d}")
    assert list(parsed.values) == ["010", "1.0", "12:30", "no"]
    assert parsed.places["12:30",] == (1, 18)


def test_places_are_those_of_names_and_items() -> None:
    places = parse_yaml(b"a:\n  - b: 1\n  - [x, y]\n").places
    assert places["a",] == (1, 1)
    assert places["a", 0, "b"] == (2, 5)
    assert places["a", 1, 1] == (3, 9)


def test_deep_and_large_texts_are_refused_at_once() -> None:
    for text in ("[" * 100_000, "- " * 100_000, "{a: " * 50_000, "a: [" + "1," * 200_000):
        with pytest.raises(ValueError, match=r"nested too deeply|too many|not well formed"):
            parse_yaml(text.encode())
    assert parse_yaml(("[" * DEEPEST + "]" * DEEPEST).encode()).values


@pytest.mark.parametrize(
    "text", ["1e5", "1e-5", "NO", "010", "12:30", "true", "~", "1.0", "ü", "=", ""]
)
def test_what_is_dumped_is_read_back(text: str) -> None:
    values = {"name": text, "list": [text, 1, 1.5, 1e300, True, None]}
    assert parse_yaml(dump_yaml(values)).values == values
