"""What the visitor reads: acts, sentences, commands and what they answered, on 100 columns."""

import re
import sys
import textwrap
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

WIDTH = 96
SECOND_COLUMN = re.compile(r"(\s*\S(?:.{0,28}?\S)? {2,})(?=\S)")
PARAGRAPH = textwrap.TextWrapper(
    WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
)
BOLD, DIM, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


@dataclass
class Story:
    """Tells the story as it happens; several may speak at once."""

    started: float = field(default_factory=time.monotonic)
    _acts: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def act(self, title: str) -> None:
        """Begin an act."""
        self._acts += 1
        clock = f"{self.seconds:.0f} s"
        head = f"{self._acts}. {title} "
        self._print(
            "", _styled(BOLD, f"{head}{'─' * (WIDTH - len(head) - len(clock) - 1)} {clock}")
        )

    def say(self, text: str) -> None:
        """Say something in plain words."""
        self._print(*PARAGRAPH.wrap(text) or [""])

    def command(self, who: str, command: str) -> None:
        """Show a command that somebody gives."""
        line = f"  {who:<22} $ {command}"
        self._print(_styled(DIM, line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"))

    def quote(self, text: str, most: int = 60) -> None:
        """Show what a command answered."""
        lines = [part for line in text.strip("\n").splitlines() for part in _folded(line)]
        self._print(*(f"    │ {line}".rstrip() for line in lines[:most]))
        if len(lines) > most:
            self._print(f"    │ … {len(lines) - most} more lines")

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Show rows under a heading, the first column to the left and the others to the right."""
        body = [list(head), *map(list, rows)]
        widths = [max(map(len, column)) for column in zip(*body, strict=True)]
        rule = "─" * (sum(widths) + 3 * (len(widths) - 1))
        lines = [_row(row, widths) for row in body]
        self._print(f"  {lines[0]}", f"  {rule}", *(f"  {line}" for line in lines[1:]))

    @property
    def seconds(self) -> float:
        """Seconds since the story began."""
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
    """Fold a long line under its second column, where it has one."""
    if len(line) <= WIDTH - 6:
        return [line]
    column = SECOND_COLUMN.match(line)
    head = column.group(1) if column else line[: len(line) - len(line.lstrip())]
    indent = " " * len(head)
    width = WIDTH - 6 - len(head)
    rest = textwrap.wrap(line[len(head) :], width, break_on_hyphens=False) or [""]
    return [f"{head}{rest[0]}", *(f"{indent}{part}" for part in rest[1:])]


def _styled(style: str, text: str) -> str:
    return f"{style}{text}{PLAIN}" if sys.stdout.isatty() else text
