"""Reads what comes before the first row of a CSV file: skipped lines, Excel's `sep=`, the header.

The names of columns that the dictionary does not read may be anything: empty, repeated, not UTF-8.
"""

import contextlib
import csv
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from client.errors import ContentFault
from client.records.dictionary import DataDictionary
from client.records.quality_report import EXPORT_AGAIN
from governance.runtime.safe_text import in_backticks

SEPARATOR_LINE = re.compile(r"sep=(.)")
"""The first line of some files that Excel writes; it names the delimiter."""
DELIMITERS = (";", ",", "\t", "|")
LINE_BREAKS = re.compile(r"\r\n|\r")
LOOK_AHEAD = 20
"""How many lines are searched for a header that comes later than the dictionary says."""
SHOWN = 1_000
OTHER_NAMES = "correct `column` (or `patient`) in the dictionary, or `delimiter`"
ENCODING_FIX = (
    "if the whole file has this encoding, set `encoding` in the dictionary, such as `encoding: "
    "windows-1252`; otherwise convert it, for example with `iconv -f windows-1252 -t utf-8`"
)


@dataclass(frozen=True)
class Beginning:
    """The number of columns, the index of each needed one, and the text before the first row."""

    columns: int
    positions: Mapping[str, int]
    text: str


def read_beginning(path: Path, lines: Sequence[str], dictionary: DataDictionary) -> Beginning:
    """Return the layout that the first lines of a file declare. Raises ContentFault."""
    if not lines:
        raise unusable(path, "the file is empty", EXPORT_AGAIN)
    skipped = dictionary.skip or _separator_lines(path, lines[0], dictionary)
    if not dictionary.header:
        names: Sequence[str] = dictionary.columns
        used = skipped
    else:
        names, used = _header(path, lines, skipped, dictionary)
    positions = _positions(path, names, lines, used, dictionary)
    return Beginning(len(names), positions, "".join(lines[:used]))


def unusable(path: Path, why: str, fix: str) -> ContentFault:
    """Return the fault of a file of records whose content is not as declared."""
    return ContentFault(f"The records in {path} cannot be used", why=why, fix=fix)


def _separator_lines(path: Path, first: str, dictionary: DataDictionary) -> int:
    named = SEPARATOR_LINE.fullmatch(first.rstrip("\n"))
    if named is None:
        return 0
    if named[1] != dictionary.delimiter:
        raise unusable(
            path,
            f"its first line says that the delimiter is {in_backticks(named[1])}, and the "
            f"dictionary says {in_backticks(dictionary.delimiter)}",
            f"set {_setting(named[1])} in the dictionary",
        )
    return 1


def _header(
    path: Path, lines: Sequence[str], skipped: int, dictionary: DataDictionary
) -> tuple[list[str], int]:
    reader = csv.reader(islice(lines, skipped, None), delimiter=dictionary.delimiter, strict=True)
    try:
        names = next(reader, None)
    except csv.Error as error:
        raise unusable(
            path,
            f"line {skipped + 1}, the header, is not CSV: a quoted name has no closing quote",
            "correct the header",
        ) from error
    if names is None:
        raise unusable(path, f"it ends before line {skipped + 1}, the header", EXPORT_AGAIN)
    return names, skipped + reader.line_num


def _positions(
    path: Path, names: Sequence[str], lines: Sequence[str], used: int, dictionary: DataDictionary
) -> dict[str, int]:
    present = [_plain(name) for name in names]
    needed = {name: _plain(name) for name in sorted(dictionary.needed_columns)}
    absent = [name for name, plain in needed.items() if plain not in present]
    if absent:
        raise _absent(path, absent, names, lines, used, dictionary)
    for name, plain in needed.items():
        places = [str(index + 1) for index, other in enumerate(present) if other == plain]
        if len(places) > 1:
            raise unusable(
                path,
                f"the header has the column {in_backticks(name)} more than once: columns "
                f"{', '.join(places)}",
                "rename the other columns in the file",
            )
    return {name: present.index(plain) for name, plain in needed.items()}


def _plain(name: str) -> str:
    """Return a name in one Unicode form, with one kind of line break."""
    return LINE_BREAKS.sub("\n", unicodedata.normalize("NFC", name))


def _absent(
    path: Path,
    absent: Sequence[str],
    names: Sequence[str],
    lines: Sequence[str],
    used: int,
    dictionary: DataDictionary,
) -> ContentFault:
    has = f"it has {', '.join(map(in_backticks, names))[:SHOWN]}" if any(names) else _EMPTY_LINE
    why = f"the file has no column {', '.join(map(in_backticks, absent))}; {has}"
    return unusable(path, why, _fix_of_names(absent, names, lines, used, dictionary))


_EMPTY_LINE = "its first line is empty"


def _fix_of_names(
    absent: Sequence[str],
    names: Sequence[str],
    lines: Sequence[str],
    used: int,
    dictionary: DataDictionary,
) -> str:
    other = next((sign for sign in DELIMITERS if len(names) == 1 and sign in names[0]), None)
    if other is not None:
        return f"set {_setting(other)} in the dictionary if that separates the columns"
    later = _later_header(absent, lines, used, dictionary.delimiter)
    if later is not None:
        return f"line {later + 1} has these columns: set `skip: {later}` in the dictionary"
    if any(_not_utf8(name) for name in names):
        return ENCODING_FIX
    similar = next((name for name in names for one in absent if _loose(name) == _loose(one)), None)
    if similar is not None:
        return (
            f"{in_backticks(similar)} differs from the dictionary's name in blanks or capitals: "
            "write the name exactly as in the file"
        )
    return OTHER_NAMES


def _later_header(
    absent: Sequence[str], lines: Sequence[str], used: int, delimiter: str
) -> int | None:
    wanted = set(map(_plain, absent))
    for number in range(used, min(len(lines), used + LOOK_AHEAD)):
        with contextlib.suppress(csv.Error):
            names = next(csv.reader([lines[number]], delimiter=delimiter), [])
            if wanted <= set(map(_plain, names)):
                return number
    return None


def _not_utf8(name: str) -> bool:
    return any("\udc80" <= letter <= "\udcff" for letter in name)


def _loose(name: str) -> str:
    return "".join(name.split()).casefold()


def _setting(delimiter: str) -> str:
    written = "\\t" if delimiter == "\t" else delimiter
    return f'`delimiter: "{written}"`'
