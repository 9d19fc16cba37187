"""Reads the list of patients who opted out: one patient id a line; `#` starts a comment."""

from pathlib import Path

from client.errors import RecordFault
from keys.errors import reason_of

LARGEST_LIST = 64 * 1024 * 1024


def read_opt_outs(path: Path) -> frozenset[str]:
    """Return the ids on the list. Raises RecordFault if the file cannot be read as text.

    A list that cannot be read stops the study: it never counts as empty.
    """
    try:
        if path.stat().st_size > LARGEST_LIST:
            raise _unreadable(path, f"it is larger than {LARGEST_LIST} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, reason_of(error)) from error
    ids = (line.split("#", 1)[0].strip() for line in text.splitlines())
    return frozenset(patient for patient in ids if patient)


def _unreadable(path: Path, why: str) -> RecordFault:
    return RecordFault(
        f"The list of opted-out patients {path} cannot be read",
        why=f"{why}; without it, the refusals of patients cannot be respected",
        fix="provide a UTF-8 text file with one patient id a line",
    )
