"""Reads the list of patients who opted out: one patient id a line.

`#` at the beginning of a line, or after a blank, starts a comment. An id that contains `#`, a
delimiter or a quotation mark is written in double quotes, and each quotation mark in it twice. A
line that cannot be read as one id makes the whole list unreadable, and without its list a node
answers nothing. This is decided from the list alone, never from a record.
"""

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from client.errors import RecordFault
from governance.runtime.text_files import decoded, read_bounded
from keys.errors import reason_of

LARGEST_LIST = 64 * 1024 * 1024
LONGEST_ID = 256
QUOTED = re.compile(r'"((?:[^"]|"")*)"(?:\s+#.*|\s*)')
COMMENT = re.compile(r"\s#")
DELIMITERS = ",;\t|"
INVISIBLE = ("Cc", "Cf", "Zl", "Zp")
"""Unicode categories of characters that no id has and that nobody sees."""


def read_opt_outs(path: Path) -> Mapping[str, int]:
    """Return the ids on the list, each with its line. Raises RecordFault if it cannot be read.

    A list that cannot be read stops every study: it never counts as empty.
    """
    try:
        text = decoded(read_bounded(path, LARGEST_LIST))
        return _ids(text)
    except (OSError, ValueError) as error:
        raise RecordFault(
            f"The list of opted-out patients {path} cannot be read",
            why=f"{reason_of(error)}; without it, the refusals of patients cannot be respected",
            fix="provide a UTF-8 text file with one patient id a line",
        ) from error


def _ids(text: str) -> dict[str, int]:
    ids: dict[str, int] = {}
    for line, written in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        try:
            patient = _id(written.strip())
        except ValueError as error:
            raise ValueError(f"line {line}: {error}") from None
        if patient:
            ids.setdefault(patient, line)
    return ids


def _id(written: str) -> str:
    """Return the id in a line; empty if there is none. Raises ValueError."""
    if written.startswith("#"):
        return ""
    patient = _unquoted(written) if written.startswith('"') else _bare(written)
    _refuse_invisible(patient)
    if len(patient) > LONGEST_ID:
        raise ValueError(f"an id has at most {LONGEST_ID} characters")
    return patient


def _unquoted(written: str) -> str:
    match = QUOTED.fullmatch(written)
    if match is None or not match[1].strip():
        raise ValueError("one id in double quotes is expected, and nothing after it")
    return match[1].replace('""', '"').strip()


def _bare(written: str) -> str:
    patient = COMMENT.split(written, maxsplit=1)[0].strip()
    if "#" in patient:
        raise ValueError(
            "it is not clear whether `#` belongs to the id: write the id in double quotes, or a "
            "blank before a comment"
        )
    if '"' in patient:
        raise ValueError("write an id with a quotation mark in double quotes, and each mark twice")
    delimiter = next((sign for sign in DELIMITERS if sign in patient), "")
    if delimiter:
        name = "a tab" if delimiter == "\t" else f"`{delimiter}`"
        raise ValueError(f"the line contains {name}; if this is one id, write it in double quotes")
    return patient


def _refuse_invisible(patient: str) -> None:
    hidden = next((sign for sign in patient if unicodedata.category(sign) in INVISIBLE), "")
    if hidden:
        raise ValueError(f"the id contains the invisible character U+{ord(hidden):04X}")
