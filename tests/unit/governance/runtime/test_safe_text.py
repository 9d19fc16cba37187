"""Characters that show nothing are escaped, and text of others is quoted as theirs."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.runtime.safe_text import (
    LONGEST_QUOTE,
    MOST_MARKS,
    escaped,
    in_backticks,
    is_plain,
    named,
    pure_json,
    quoted,
)

ANY = st.text(st.characters(), max_size=60)
"""Any text, lone surrogates included."""
HIDDEN = ["\x00", "\n", "\x1b", "\x7f", "\x9b", "\u200b", "\u200f", "\u2028", "\u202e", "\u2066",
          "\ufeff"]  # fmt: skip
UNSEEN = [*HIDDEN, "\t", "\r", "\x85", "\xa0", "\xad", "\u061c", "\u034f", "\u115f", "\u180e",
          "\u2029", "\u2800", "\u3000", "\u3164", "\ud800", "\ue000", "\ufe0f", "\uffa0", "\ufff9",
          "\U000e0001", "\U000e0041", "\U000e0100", "\U000f0000", "\U0010ffff", "\u20dd",
          "\u0378"]  # fmt: skip


@pytest.mark.parametrize("character", HIDDEN)
def test_a_document_contains_no_hidden_character(character: str) -> None:
    assert not is_plain(f"allow{character}ed")


@pytest.mark.parametrize("character", UNSEEN)
def test_what_shows_nothing_is_escaped(character: str) -> None:
    escape = f"\\u{{{ord(character):x}}}"
    assert escaped(f"allow{character}ed") == f"allow{escape}ed"
    assert pure_json(f"allow{character}ed").isprintable()
    assert json.loads(pure_json(f"allow{character}ed")) == f"allow{character}ed"


@pytest.mark.parametrize(
    "text",
    ["", "Région Île-de-France", "Re\u0301gion", "Υγεία", "健康", "नमस्ते", "ε = 0.5, δ ≤ 10⁻⁵"],
)
def test_text_of_every_language_is_shown_as_it_is(text: str) -> None:
    assert is_plain(text)
    assert escaped(text) == text
    assert quoted(text) == f'"{text}"'


@pytest.mark.parametrize("base", ["", " ", '"', "\n", "-", "€"])
def test_a_mark_that_no_letter_carries_is_escaped(base: str) -> None:
    assert escaped(f"{base}\u0301").endswith("\\u{301}")


def test_marks_cannot_be_piled_up_over_other_lines() -> None:
    assert escaped("a" + "\u0301" * 9) == "a" + "\u0301" * MOST_MARKS + "\\u{301}" * 5


@given(ANY)
def test_whatever_is_escaped_has_no_unseen_character(text: str) -> None:
    shown = escaped(text)
    assert all(c == " " or unicodedata.category(c)[0] not in "CZ" for c in shown)
    assert escaped(shown) == shown


@given(ANY)
def test_a_quotation_ends_with_its_own_mark_only(text: str) -> None:
    inside = quoted(text)[1:-1]
    assert quoted(text)[0] == quoted(text)[-1] == '"'
    assert '"' not in inside.replace(r"\\", "").replace(r"\"", "")
    assert "  " not in inside


@given(ANY, ANY)
def test_different_texts_have_different_quotations(one: str, other: str) -> None:
    assert (quoted(one) == quoted(other)) is (one == other)


def test_a_long_text_is_cut_and_says_so() -> None:
    text = quoted("x" * (LONGEST_QUOTE + 7))
    assert text == f'"{"x" * LONGEST_QUOTE}" and 7 more characters'


@pytest.mark.parametrize("name", ["heart-by-sex", "national/dk/x", "sha256:ab", "a@b.example:7443"])
def test_a_name_is_shown_as_it_is(name: str) -> None:
    assert named(name) == name


@pytest.mark.parametrize("name", ["", "two words", "a\nb", "ε", "x" * 129])
def test_what_is_no_name_is_quoted(name: str) -> None:
    assert named(name) == quoted(name)


@given(st.dictionaries(ANY, st.lists(ANY | st.integers() | st.floats(allow_nan=False))))
def test_json_keeps_every_value_and_shows_every_character(value: dict[str, object]) -> None:
    text = pure_json(value, indent=2)
    assert all(escaped(line) == line for line in text.split("\n"))
    assert json.loads(text, parse_constant=pytest.fail) == json.loads(
        json.dumps(value), parse_constant=str
    )


def test_a_name_in_backticks_hides_nothing() -> None:
    assert in_backticks("a\nb\u200b ö") == "`a\\u{a}b\\u{200b} ö`"
    assert in_backticks("\udcfc") == "`\\u{dcfc}`"
