"""Lines are broken at the reader's width, and continue further right than our labels begin."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.runtime.safe_text import escaped
from governance.runtime.text_layout import (
    HANGING,
    LABEL,
    NARROWEST,
    USUAL_WIDTH,
    broken,
    display_width,
    in_columns,
    labelled,
    line_width,
)

TEXT = st.builds(
    "{}{}".format,
    st.sampled_from(["", " ", " " * HANGING, " " * 40]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=120),
)
WIDTHS = st.integers(NARROWEST, 200)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("", 0),
        ("abc", 3),
        ("健康", 4),
        ("e\u0301", 1),
        ("Υγεία", 5),
        ("🙂", 2),
        ("☎", 2),
        ("한", 2),
    ],
)
def test_width_counts_columns_and_not_characters(text: str, columns: int) -> None:
    assert display_width(text) == columns


@pytest.mark.parametrize(
    ("stated", "width"),
    [("40", 40), ("1", NARROWEST), ("0", 80), ("x", 80), ("", 80), ("²", 80)],
)
def test_the_width_is_the_stated_one(
    monkeypatch: pytest.MonkeyPatch, stated: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", stated)
    monkeypatch.setattr("governance.runtime.text_layout._columns_of", lambda _: 0)
    assert line_width() == width
    assert USUAL_WIDTH == 80


def test_the_width_is_that_of_any_terminal_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS")
    sizes = {1: 0, 2: 57, 0: 99}
    monkeypatch.setattr("governance.runtime.text_layout._columns_of", sizes.__getitem__)
    assert line_width() == 57
    monkeypatch.setenv("COLUMNS", "200")
    assert line_width() == 57, "the terminal would break longer lines"


@given(TEXT, WIDTHS)
def test_no_line_is_wider_than_the_reader_s_terminal(text: str, width: int) -> None:
    assert all(display_width(line) <= width for line in broken(text, width))
    assert all(display_width(line) <= width for line in labelled([("Question", text)], width))
    assert all(display_width(line) <= width for line in labelled([("", text)], width))


@given(TEXT, WIDTHS)
def test_breaking_loses_nothing(text: str, width: int) -> None:
    lines = broken(text, width)
    assert "".join("".join(lines).split(" ")) == "".join(escaped(text).split(" "))


@given(TEXT, WIDTHS)
def test_a_broken_line_continues_further_right(text: str, width: int) -> None:
    words = text.lstrip(" ")
    assert all(line[:HANGING].isspace() for line in broken(words, width)[1:])
    more = labelled([("Question", text)], width)[1:]
    assert all(line[:LABEL].isspace() for line in more)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), WIDTHS)
def test_columns_fit_and_the_first_one_keeps_its_place(
    rows: list[tuple[str, str]], width: int
) -> None:
    lines = in_columns([("  name", "value"), *rows], width)
    assert all(display_width(line) <= width for line in lines)


def test_columns_are_aligned() -> None:
    assert in_columns([("one", "first"), ("longer name", "2")], 80) == [
        "one          first",
        "longer name  2",
    ]


def test_a_cell_that_is_too_wide_continues_in_its_own_column() -> None:
    lines = in_columns([("  a", "word " * 6), ("  b", "x")], 24)
    assert lines == ["  a     word word word", "        word word word", "  b     x"]


def test_many_narrow_columns_stay_columns() -> None:
    assert in_columns([("ab",) * 7], 26) == ["  ".join(["ab"] * 7)]


def test_columns_that_do_not_fit_become_lists() -> None:
    rows = [("entry", "time", "reason"), ("12345678", "x" * 9, "word " * 3)]
    assert in_columns(rows, 24) == [
        "entry         12345678",
        "time          xxxxxxxxx",
        "reason        word word",
        "              word",
        "",
    ]


def test_a_real_terminal_has_nothing_to_break() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    code = "from governance.runtime.cli_support import say; say('Question ' + 'word ' * 40)"
    environment = {**os.environ, "COLUMNS": "200"}
    subprocess.run([sys.executable, "-c", code], stdout=theirs, env=environment, check=True)
    os.close(theirs)
    lines = os.read(ours, 4096).decode().splitlines()
    os.close(ours)
    assert max(map(len, lines)) <= 40
    assert all(line.startswith(" " * HANGING) for line in lines[1:])
    assert len(lines) > 5
