"""Print what a command says: sentences, questions, warnings, and one JSON value on request."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from governance.officer.errors import OfficerFault
from governance.runtime.cli_support import as_json_text, json_list
from governance.runtime.safe_text import shown

Row = Sequence[str]
_HOW_TO_ANSWER = "answer it at a terminal, or give --yes once you have read what is asked"


class Terminal:
    """Print sentences to standard output, laid out on a terminal and plain elsewhere.

    With `as_json` the JSON value goes to standard output and the sentences to standard error.
    `quiet` prints nothing, for a program that runs without a user.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self._as_json, self._quiet = as_json, quiet
        self._console = Console(
            stderr=as_json, highlight=False, markup=False, emoji=False, quiet=quiet
        )

    def say(self, text: str = "") -> None:
        """Print a line or a paragraph."""
        lines = "\n".join(map(shown, text.split("\n")))
        self._console.print(Text(lines), soft_wrap=not self._console.is_terminal)

    def heading(self, text: str) -> None:
        """Print a heading."""
        self.say()
        self._console.print(Text(shown(text), style="bold"), soft_wrap=True)

    def facts(self, facts: Mapping[str, str]) -> None:
        """Print names and values, one pair on each line."""
        self._columns([(f"  {name}", value) for name, value in facts.items()])

    def table(self, headings: Row, rows: Iterable[Row]) -> None:
        """Print rows under headings; without headings, more rows of the table before."""
        self._columns([headings, *rows] if headings else [*rows], titled=bool(headings))

    def _columns(self, cells: Sequence[Row], *, titled: bool = False) -> None:
        rows = [tuple(map(shown, row)) for row in cells]
        if not self._console.is_terminal:
            for line in aligned(rows):
                self.say(line)
            return
        grid = Table.grid(padding=(0, 2))
        for number, row in enumerate(rows):
            style = "bold" if titled and number == 0 else ""
            grid.add_row(*(Text(cell, style=style, overflow="fold") for cell in row))
        self._console.print(grid)

    def warn(self, text: str) -> None:
        """Print a warning to standard error."""
        if not self._quiet:
            typer.echo(f"Note: {shown(text)}", err=True)

    def answer(self, value: Any) -> None:
        """Print the JSON value, if it was requested."""
        if self._as_json:
            typer.echo(as_json_text(value))

    def answer_list(self, values: Iterable[Any]) -> None:
        """Go through the values, and print them as a JSON list if that was requested."""
        for part in json_list(values):
            if self._as_json:
                typer.echo(part, nl=False)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask a question, unless `yes`. Raises OfficerFault if the officer does not agree."""
        if not (yes or self._agreed(question)):
            raise OfficerFault("Nothing was signed", why="you answered no")

    def insist(self, question: str) -> None:
        """Ask a question, whether --yes was given or not. Raises OfficerFault as `confirm` does."""
        if not self._agreed(question, "answer it at a terminal; --yes does not answer this one"):
            raise OfficerFault("Nothing was signed", why="you answered no")

    def _agreed(self, question: str, fix: str = _HOW_TO_ANSWER) -> bool:
        try:
            return typer.confirm(question, err=self._as_json)
        except typer.Abort:
            self.say()
            raise OfficerFault(
                "Nothing was signed",
                why="nobody answered the question",
                fix=fix,
            ) from None


def aligned(rows: Sequence[Row]) -> list[str]:
    """Return rows of cells as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
