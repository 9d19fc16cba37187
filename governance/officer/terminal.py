"""Print what a command says: sentences, questions, warnings, and one JSON value on request."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer

from governance.officer.errors import OfficerFault
from governance.runtime.cli_support import as_json_text, say
from governance.runtime.text_layout import Row, in_columns, labelled, line_width

_HOW_TO_ANSWER = "answer it at a terminal, or give --yes once you have read what is asked"


class Terminal:
    """Print sentences to standard output, each broken at the reader's width.

    With `as_json` the JSON value goes to standard output and the sentences to standard error.
    `quiet` prints nothing, for a program that runs without a user.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self._as_json, self._quiet = as_json, quiet

    def say(self, line: str = "") -> None:
        """Print a line."""
        self._print([line])

    def heading(self, text: str) -> None:
        """Print a heading."""
        self._print([""])
        self._print([text], bold=True)

    def facts(self, facts: Mapping[str, str]) -> None:
        """Print names and values, one pair on each line."""
        self._columns([(f"  {name}", value) for name, value in facts.items()])

    def table(self, headings: Row, rows: Iterable[Row]) -> None:
        """Print rows under headings."""
        self._columns([headings, *rows])

    def labelled(self, entries: Sequence[tuple[str, str]]) -> None:
        """Print texts beside the column of their labels."""
        self._print(labelled(entries, line_width()))

    def verbatim(self, text: str) -> None:
        """Print a text of several lines as it is written, each line behind a bar."""
        self._print([f"  | {line}" for line in text.removesuffix("\n").expandtabs().split("\n")])

    def _columns(self, rows: Sequence[Row]) -> None:
        self._print(in_columns(rows, line_width()) if rows else [])

    def _print(self, lines: Iterable[str], *, bold: bool = False) -> None:
        for line in () if self._quiet else lines:
            say(line, err=self._as_json, bold=bold)

    def warn(self, text: str) -> None:
        """Print a warning to standard error."""
        if not self._quiet:
            say(f"Note: {text}", err=True)

    def answer(self, value: Any) -> None:
        """Print the JSON value, if it was requested."""
        if self._as_json:
            typer.echo(as_json_text(value))

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
