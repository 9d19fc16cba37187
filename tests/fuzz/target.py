"""What a fuzz target is, what every one of them must fulfil, and parsers made from others."""

import os
import tempfile
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from governance.runtime.text_layout import broken
from keys.errors import PratiqueError

Parse = Callable[[bytes], object]
Seeds = tuple[bytes, ...]
SEPARATOR = b"\n\xff\n"
"""Between the parts of an input of several texts."""
WIDTH = 80
LONGEST_MESSAGE = 100_000
"""Characters of an error: it names places in a text and does not repeat it."""
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories of characters that nobody sees, or that control the terminal."""


@dataclass(frozen=True)
class Target:
    """One parser of bytes from outside.

    `modules` are those whose parsing it reaches; its seeds execute code of each of them. Seeds that
    take long to make are made at their first use.
    """

    parse: Parse
    made: Seeds | Callable[[], Seeds]
    modules: tuple[str, ...]

    @cached_property
    def seeds(self) -> Seeds:
        """Return valid inputs, from which fuzzing begins."""
        return self.made if isinstance(self.made, tuple) else self.made()

    def check(self, data: bytes) -> None:
        """Parse these bytes. Any exception is a fault; what is refused is refused in plain words.

        The parser raises AssertionError if it accepts something in a way that it must not.
        """
        try:
            self.parse(data)
        except PratiqueError as fault:
            require_plain(fault)


def require_plain(fault: PratiqueError) -> None:
    """Require that an error is short, and that a command shows it without a hidden character."""
    sentences = "\n".join(fault.sentences)
    assert len(sentences) <= LONGEST_MESSAGE, f"a message of {len(sentences)} characters"
    require_seen(*broken(sentences[: 20 * WIDTH], WIDTH))


def require_seen(*lines: str) -> None:
    """Require that lines that are shown contain nothing that nobody sees."""
    for line in lines:
        hidden = [sign for sign in line if unicodedata.category(sign) in UNSEEN]
        assert not hidden, f"U+{ord(hidden[0]):04X} is shown"


def text(parse: Callable[[str], object]) -> Parse:
    """Return a parser of bytes from one of text, as the command line decodes it."""
    return lambda data: parse(data.decode(errors="surrogateescape"))


def parts(parse: Callable[..., object], number: int) -> Parse:
    """Return a parser of bytes from one that takes this number of them."""

    def split(data: bytes) -> object:
        pieces = data.split(SEPARATOR, number - 1)
        return parse(*pieces, *[b""] * (number - len(pieces)))

    return split


def joined(*pieces: bytes) -> bytes:
    """Return the input of a parser of several parts."""
    return SEPARATOR.join(pieces)


def file(parse: Callable[[Path], object], name: str = "file") -> Parse:
    """Return a parser of bytes from one that reads a file."""

    def read(data: bytes) -> object:
        path = scratch() / name
        with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as opened:
            opened.write(data)
        return parse(path)

    return read


_SCRATCH: list[tempfile.TemporaryDirectory[str]] = []


def scratch() -> Path:
    """Return this process's folder for files that are parsed."""
    if not _SCRATCH:
        _SCRATCH.append(tempfile.TemporaryDirectory(prefix="fuzz"))
    return Path(_SCRATCH[0].name)
