"""Print the demo: sections, sentences, commands and their output, within 100 columns."""

import re
import sys
import textwrap
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

WIDTH = 96
QUOTED_WIDTH = WIDTH - 6
"""The width of a command's output, which is quoted behind a bar."""
SECOND_COLUMN = re.compile(r"(\s*\S(?:.{0,28}?\S)? {2,})(?=\S)")
PARAGRAPH = textwrap.TextWrapper(
    WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
)
BOLD, DIM, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


@dataclass
class Story:
    """Prints what happens, as it happens. Safe to use from several threads."""

    started: float = field(default_factory=time.monotonic)
    _sections: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def section(self, title: str) -> None:
        """Print the heading of a new section."""
        self._sections += 1
        clock = f"{self.seconds:.0f} s"
        head = f"{self._sections}. {title} "
        self._print(
            "", _styled(BOLD, f"{head}{'─' * (WIDTH - len(head) - len(clock) - 1)} {clock}")
        )

    def say(self, text: str) -> None:
        """Print a paragraph."""
        self._print(*PARAGRAPH.wrap(text) or [""])

    def command(self, who: str, command: str) -> None:
        """Print a command and the party that runs it."""
        line = f"  {who:<22} $ {command}"
        self._print(_styled(DIM, line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"))

    def quote(self, text: str, most: int = 60) -> None:
        """Print the output of a command, at most `most` lines of it."""
        lines = [part for line in text.strip("\n").splitlines() for part in _folded(line)]
        self._print(*(f"    │ {line}".rstrip() for line in lines[:most]))
        if len(lines) > most:
            self._print(f"    │ … {len(lines) - most} more lines")

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print rows under a heading; the first column is left-aligned, the others are not."""
        body = [list(head), *map(list, rows)]
        widths = [max(map(len, column)) for column in zip(*body, strict=True)]
        rule = "─" * (sum(widths) + 3 * (len(widths) - 1))
        lines = [_row(row, widths) for row in body]
        self._print(f"  {lines[0]}", f"  {rule}", *(f"  {line}" for line in lines[1:]))

    @property
    def seconds(self) -> float:
        """Seconds since the start of the demo."""
        return time.monotonic() - self.started

    def _print(self, *lines: str) -> None:
        with self._lock:
            sys.stdout.write("".join(f"{line}\n" for line in lines))
            sys.stdout.flush()


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    aligned = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return "   ".join(aligned).rstrip()


def _folded(line: str) -> list[str]:
    """Fold a long line; align the rest under its second column if there is one."""
    if len(line) <= QUOTED_WIDTH:
        return [line]
    column = SECOND_COLUMN.match(line)
    head = column.group(1) if column else line[: len(line) - len(line.lstrip())]
    indent = " " * len(head)
    width = QUOTED_WIDTH - len(head)
    rest = textwrap.wrap(line[len(head) :], width, break_on_hyphens=False) or [""]
    return [f"{head}{rest[0]}", *(f"{indent}{part}" for part in rest[1:])]


def _styled(style: str, text: str) -> str:
    return f"{style}{text}{PLAIN}" if sys.stdout.isatty() else text
