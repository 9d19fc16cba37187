"""Copies a CSV file into memory as UTF-8 with plain line ends, and finds its header and lines.

The copy is what is hashed and what is parsed, so a file that changes meanwhile is noticed. It is
memory of this process and never on a disk. Its path has no character that the parser would
interpret, whatever the path of the file.
"""

import codecs
import csv
import hashlib
import mmap
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from client.records.csv_beginning import read_beginning, unusable
from client.records.dictionary import DataDictionary
from governance.runtime.text_files import open_regular, refuse_other_kinds

LONGEST_LINE = 100_000
CHUNK = 1024 * 1024
LONGEST_BEGINNING = 4 * CHUNK
"""The skipped lines and the header must end within so many bytes."""
BOM = "\ufeff"
LINE = re.compile(r"[^\n]*\n|[^\n]+")
MARKED = {"utf-16"}
"""Encodings that need a byte order mark."""
SET_UTF_16 = "set `encoding: utf-16` in the dictionary, or save the file as UTF-8"


@dataclass(frozen=True)
class CsvText:
    """A CSV file in memory.

    `digest` covers the bytes of the file. `columns` is the number of columns, `positions` the index
    of each column that the dictionary reads. The rows begin after `lines_before` lines, at byte
    `start`; before it the copy has blank lines only, which the parser passes over.
    """

    file: Path
    memory: int
    digest: str
    columns: int
    positions: Mapping[str, int]
    lines_before: int
    start: int
    delimiter: str

    @property
    def path(self) -> str:
        """A path under which this process can open the copy."""
        return f"/proc/self/fd/{self.memory}"

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield each row that is not blank, with the line on which it ends, counted from 1.

        A byte that is not UTF-8 becomes a surrogate. Raises ContentFault if it is not CSV.
        """
        path, line = Path(self.path), self.lines_before
        with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            file.seek(self.start)
            reader = csv.reader(file, delimiter=self.delimiter, strict=True)
            try:
                for fields in reader:
                    line = self.lines_before + reader.line_num
                    if fields:
                        yield line, fields
            except csv.Error as error:
                why = f"line {line + 1}: {_reason(error)}"
                raise unusable(self.file, why, "correct the line") from error

    def may_end_with_delimiter(self) -> bool:
        """Whether some line of the file ends with the delimiter."""
        size, ending = os.fstat(self.memory).st_size, self.delimiter.encode()
        if not size:
            return False
        with mmap.mmap(self.memory, size, access=mmap.ACCESS_READ) as data:
            return data.find(ending + b"\n") >= 0 or data[-1:] == ending


@contextmanager
def csv_text(path: Path, dictionary: DataDictionary) -> Iterator[CsvText]:
    """Copy a file. Raises OSError, or ContentFault if its beginning is not as declared."""
    memory = os.memfd_create("records")
    try:
        with open_regular(path) as file:
            before = _stamp(file)
            digest = _copy(file, memory, dictionary.encoding, path)
            if _stamp(file) != before:
                raise unusable(
                    path,
                    "the file changed while it was being read",
                    "try again when the file is complete",
                )
        text = os.pread(memory, LONGEST_BEGINNING, 0).decode(errors="surrogateescape")
        beginning = read_beginning(path, LINE.findall(text), dictionary)
        start = len(beginning.text.encode(errors="surrogateescape"))
        os.pwrite(memory, b"\n" * start, 0)
        yield CsvText(
            file=path,
            memory=memory,
            digest=digest,
            columns=beginning.columns,
            positions=beginning.positions,
            lines_before=beginning.text.count("\n"),
            start=start,
            delimiter=dictionary.delimiter,
        )
    finally:
        os.close(memory)


def _reason(error: csv.Error) -> str:
    if "limit" in str(error):
        return f"the line is longer than {LONGEST_LINE} bytes"
    return "a quoted value has no closing quote, or a quote within it is not doubled"


def _stamp(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _copy(file: BinaryIO, memory: int, encoding: str, path: Path) -> str:
    """Write the file's text into memory, and return the SHA-256 of its bytes in hexadecimal."""
    sha = hashlib.sha256()

    def chunks() -> Iterator[bytes]:
        while chunk := file.read(CHUNK):
            sha.update(chunk)
            yield chunk

    try:
        for piece in _plain_line_ends(_as_utf8(chunks(), encoding)):
            _write(memory, piece)
    except UnicodeError as error:
        raise unusable(
            path,
            f"it is not {encoding} text, as the dictionary says: {error}",
            "correct `encoding` in the dictionary",
        ) from error
    except ValueError as error:
        fix = SET_UTF_16 if "UTF-16" in str(error) else "save it as CSV text in UTF-8"
        raise unusable(path, str(error), fix) from error
    return sha.hexdigest()


def _write(memory: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(memory, view) :]


def _as_utf8(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    first = next(chunks, b"")
    if encoding == "utf-8":
        refuse_other_kinds(first)
        yield first.removeprefix(codecs.BOM_UTF8)
        yield from chunks
        return
    _refuse_wrong_mark(first, encoding)
    yield from _recoded(first, chunks, encoding)


def _refuse_wrong_mark(first: bytes, encoding: str) -> None:
    marked_16 = first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if first.startswith(codecs.BOM_UTF8):
        raise UnicodeError("it begins with the byte order mark of UTF-8")
    if encoding in MARKED and not marked_16:
        raise UnicodeError("it has no byte order mark; write utf-16-le or utf-16-be")
    if marked_16 and not encoding.startswith("utf-16"):
        raise UnicodeError("it begins with the byte order mark of UTF-16")


def _recoded(first: bytes, chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    utf8 = _Utf8Check()
    text = decoder.decode(first).removeprefix(BOM)
    utf8.take(first)
    while True:
        yield text.encode()
        chunk = next(chunks, b"")
        utf8.take(chunk)
        text = decoder.decode(chunk, final=not chunk)
        if not chunk:
            break
    yield text.encode()
    if utf8.probable and not encoding.startswith("utf-16"):
        raise UnicodeError("all of it is UTF-8 text; leave `encoding` out")


class _Utf8Check:
    """Notices that bytes which were declared as an eight-bit encoding are UTF-8 in truth."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._valid, self._beyond_ascii = True, False

    def take(self, data: bytes) -> None:
        if not self._valid:
            return
        try:
            self._decoder.decode(data, final=not data)
        except UnicodeDecodeError:
            self._valid = False
        self._beyond_ascii |= not data.isascii()

    @property
    def probable(self) -> bool:
        """Whether there were characters beyond ASCII, and all of them were valid UTF-8."""
        return self._valid and self._beyond_ascii


def _plain_line_ends(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Replace CR LF by LF; and CR by LF in a file that begins with lines which end so."""
    held, only_cr = b"", None
    for piece in pieces:
        text = held + piece
        held = b"\r" if text.endswith(b"\r") else b""
        text = text.removesuffix(b"\r").replace(b"\r\n", b"\n")
        if only_cr is None and (text or held):
            only_cr = b"\n" not in text and b"\r" in text
        yield text.replace(b"\r", b"\n") if only_cr else text
    yield b"\n" if held else b""
