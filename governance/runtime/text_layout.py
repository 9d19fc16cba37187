"""Break text into lines for a terminal, so that a line never begins with a part of another line.

The terminal itself would continue a long line in its first column, where our own words begin, and
a text of somebody else could begin there with words of ours. So every line is broken here, at the
width that the reader has, and continues further right than any label of ours begins.
"""

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence

from governance.runtime.safe_text import escaped

Row = Sequence[str]
HANGING = 8
"""Columns by which a broken line continues further right; no label of ours begins there."""
LABEL = 14
"""Width of the column of labels."""
USUAL_WIDTH = 80
"""If the width is not known, as for a file that is shown on some terminal later."""
NARROWEST = 32
"""Columns below which lines are not broken further."""
SHORTEST_PART = 8
"""Columns that a part of a broken line has at least."""
GAP = "  "


def line_width() -> int:
    """Return the reader's number of columns: that of the terminal, and at most COLUMNS."""
    stated = os.environ.get("COLUMNS", "")
    sizes = [int(stated)] if stated.isascii() and stated.isdecimal() else []
    sizes += [_columns_of(number) for number in (1, 2)]  # output and errors
    known = min(filter(None, sizes), default=_columns_of(0) or USUAL_WIDTH)
    return max(NARROWEST, known)


def _columns_of(descriptor: int) -> int:
    try:
        return os.get_terminal_size(descriptor).columns
    except OSError:
        return 0


def display_width(text: str) -> int:
    """Return how many columns a terminal needs for the text, rather too many than too few.

    Symbols count as two columns, because terminals differ.
    """
    return len(text) if text.isascii() else sum(map(_width, text))


def _width(character: str) -> int:
    category = unicodedata.category(character)
    if category in {"Mn", "Me"}:
        return 0
    breadth = unicodedata.east_asian_width(character)
    symbol = category[0] not in "LNM" and not character.isascii()
    return 2 if breadth in "WF" or (symbol and (breadth == "A" or category == "So")) else 1


def broken(text: str, width: int, *, first: str = "", rest: str | None = None) -> list[str]:
    """Return the text as lines of at most `width` columns, after `first` and then `rest`.

    By default a line continues HANGING columns to the right of its first character. What shows
    nothing is escaped, line ends included.
    """
    text = escaped(text)
    if display_width(first) + display_width(text) <= width:
        return [f"{first}{text}".rstrip()]
    room = max(0, width - SHORTEST_PART - display_width(first))
    lead = " " * min(HANGING, room, len(text) - len(text.lstrip(" ")))
    indent = lead + " " * HANGING if rest is None else rest
    indent = indent[: max(0, width - SHORTEST_PART)]
    text, lines = text.lstrip(" "), [first + lead]
    for word in _words(text, width - max(len(indent), display_width(lines[0]))):
        if lines[-1].strip() and display_width(lines[-1]) + display_width(word) > width:
            lines.append(indent + word.lstrip(" "))
        else:
            lines[-1] += word
    return [line.rstrip() for line in lines]


def _words(text: str, longest: int) -> Iterator[str]:
    """Yield each word with the spaces before it; one that is too long in parts."""
    for spaces, word in re.findall("( *)([^ ]+)", text):
        first, *more = _parts(word, longest)
        yield (spaces if len(spaces) + display_width(word) <= longest else spaces[:1]) + first
        yield from more


def _parts(word: str, longest: int) -> Iterator[str]:
    """Yield parts of at most `longest` columns; a mark stays with its letter."""
    part, used = "", 0
    for character in word:
        width = _width(character)
        if used + width > longest:
            yield part
            part, used = "", 0
        part, used = part + character, used + width
    yield part


def labelled(entries: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Return labels and their texts in two columns; an empty text gives the label alone."""
    lines = []
    for label, text in entries:
        fits = display_width(label) < LABEL
        lines += [] if fits else broken(label, width)
        first = _padded(label if fits else "", LABEL)
        lines += broken(text, width, first=first, rest=" " * LABEL)
    return lines


def in_columns(rows: Sequence[Row], width: int) -> list[str]:
    """Return rows of cells as lines with aligned columns; a cell that is too wide is broken.

    If the columns do not fit, every row is shown as a list, with the cells of the first as labels.
    """
    cells = [tuple(map(escaped, row)) for row in rows]
    needed = [max(map(display_width, column)) for column in zip(*cells, strict=True)]
    room = width - len(GAP) * (len(needed) - 1)
    if sum(needed) > room:
        needed[0] = max(needed[0], HANGING - len(GAP))
    shortest = [HANGING + SHORTEST_PART, *[SHORTEST_PART] * (len(needed) - 1)]
    least = list(map(min, needed, shortest))
    if sum(least) > room:
        pairs = (zip(cells[0], row, strict=True) for row in cells[1:])
        return [line for row in pairs for line in labelled([*row, ("", "")], width)]
    widths = _fitted(needed, least, room)
    return [line for row in cells for line in _lines_of(row, widths)]


def _fitted(needed: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Return the columns' widths: the one with most to spare shrinks until all fit."""
    widths = list(needed)
    while sum(widths) > room:
        spare = [width - low for width, low in zip(widths, least, strict=True)]
        widths[spare.index(max(spare))] -= 1
    return widths


def _lines_of(row: Row, widths: Sequence[int]) -> Iterator[str]:
    """Yield the lines of one row; the first cell continues further right than it begins."""
    hanging = [" " * HANGING, *[""] * (len(widths) - 1)]
    parts = [
        broken(cell, width, rest=rest)
        for cell, width, rest in zip(row, widths, hanging, strict=True)
    ]
    for number in range(max(map(len, parts))):
        line = [part[number] if number < len(part) else "" for part in parts]
        yield GAP.join(map(_padded, line, widths)).rstrip()


def _padded(text: str, width: int) -> str:
    return text + " " * (width - display_width(text))
