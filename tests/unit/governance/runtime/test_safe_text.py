"""Hidden, control and direction-changing characters are found and replaced."""

import pytest

from governance.runtime.safe_text import is_plain, shown

HIDDEN = ["\x00", "\n", "\x1b", "\x7f", "\x9b", "\u200b", "\u200f", "\u2028", "\u202e", "\u2066",
          "\ufeff"]  # fmt: skip


@pytest.mark.parametrize("character", HIDDEN)
def test_hidden_characters_are_not_plain_and_are_replaced(character: str) -> None:
    text = f"allow{character}ed"
    assert not is_plain(text)
    assert shown(text) == "allow\N{REPLACEMENT CHARACTER}ed"


@pytest.mark.parametrize("text", ["", "Région Île-de-France", "Υγεία", "健康", "ε = 0.5, δ ≤ 10⁻⁵"])
def test_text_of_every_language_is_plain(text: str) -> None:
    assert is_plain(text)
    assert shown(text) == text
