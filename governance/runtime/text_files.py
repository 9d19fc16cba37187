"""Reads and decodes files of people, and names what a file is that is not UTF-8 text."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

SIGNATURES = {
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"\x1f\x8b": "compressed with gzip",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"PAR1": "a Parquet file",
    b"SQLite format 3": "an SQLite database",
}
"""The first bytes of files that people give instead of text."""
NUL_SHARE = 4
"""In UTF-16, about half of the bytes of Latin text are NUL; in UTF-8 hardly any."""
SAMPLE = 1000


def decoded(data: bytes) -> str:
    """Return UTF-8 text without its byte order mark. Raises ValueError that says what it is."""
    refuse_other_kinds(data)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        start = data.rfind(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line}, byte {error.start - start + 1}: {not_utf8(data[error.start])}"
        ) from error


def refuse_other_kinds(data: bytes) -> None:
    """Raise ValueError if a file that begins with `data` is no text, or is UTF-16."""
    kind = next((kind for mark, kind in SIGNATURES.items() if data.startswith(mark)), "")
    sample = data[:SAMPLE]
    if not kind and sample.count(0) * NUL_SHARE > len(sample):
        kind = "UTF-16 text, or no text"
    if kind:
        raise ValueError(f"it is {kind}, and not UTF-8 text")


def not_utf8(byte: int) -> str:
    """Return a clause about a byte that is not UTF-8."""
    letter = bytes([byte]).decode("windows-1252", errors="replace")
    guess = f"; it looks like Windows-1252, where it is `{letter}`" if letter.isprintable() else ""
    return f"the byte 0x{byte:02X} is not UTF-8 text{guess}"


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read; never wait for a pipe or a device. Raises OSError."""
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 (opener; caller closes)
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def read_bounded(path: Path, largest: int) -> bytes:
    """Return a regular file's bytes. Raises OSError, or ValueError if more than `largest`."""
    with open_regular(path) as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise ValueError(f"it is larger than {_size(largest)}")
    return data


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _size(count: int) -> str:
    kilo = 1024
    return f"{count // kilo} kB" if count >= kilo else f"{count} bytes"
