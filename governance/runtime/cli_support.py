"""What the commands of all three programs share: options, plain errors, answers as text or JSON."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import indent as indented
from typing import Annotated, Any

import typer

from governance.runtime.homes import absolute, expanded
from governance.runtime.program import BROKEN_PIPE, discard_output
from governance.runtime.safe_text import pure_json
from governance.runtime.text_layout import HANGING, broken, line_width
from keys.errors import PratiqueError, reason_of


def given_path(path: Path | None) -> Path | None:
    """Return the path of an option's file, with `~` replaced. Raises BadParameter if it is none."""
    if path is not None and not path.name:  # also of an empty text, such as `--out "$UNSET"`
        raise typer.BadParameter("this is no file name")
    with plain_errors():
        return None if path is None else expanded(path)


def given_folder(path: Path | None) -> Path | None:
    """Return the absolute path of an option's folder or file, with `~` replaced."""
    with plain_errors():
        return None if path is None else absolute(path)


def home_option(text: str) -> Any:
    """Return the option --home of a program; `text` is its help."""
    return typer.Option(
        "--home", envvar="PRATIQUE_HOME", help=text, callback=given_folder, readable=False
    )


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="File that holds the key store's passphrase.",
        callback=given_path,
        readable=False,
    ),
]
PassphraseFd = Annotated[
    int | None,
    typer.Option("--passphrase-fd", help="Open descriptor with the passphrase."),
]
LogFileOption = Annotated[
    Path | None,
    typer.Option(
        "--log-file",
        help="File for log lines; it rotates. Default: standard error.",
        callback=given_path,
        readable=False,
    ),
]
INTERRUPTED = 130
"""Exit status as in a shell: 128 plus the number of SIGINT."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Print an expected error as plain sentences and exit with status 1."""
    try:
        yield
    except PratiqueError as fault:
        print_error(fault)
        raise typer.Exit(1) from fault
    except BrokenPipeError as error:
        discard_output()
        raise typer.Exit(BROKEN_PIPE) from error
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        why = reason_of(error) + where
        print_error(
            PratiqueError(
                "The operating system refused the operation",
                why=why,
                fix="free space or allow access",
            )
        )
        raise typer.Exit(1) from error
    except KeyboardInterrupt as stopped:
        raise typer.Exit(INTERRUPTED) from stopped


def say(line: str, *, err: bool = False, bold: bool = False) -> None:
    """Print a line, broken at the reader's width; the only way in which a command prints text.

    What the terminal's encoding cannot show is written as its code before the line is broken.
    """
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    known = line.encode(encoding, "backslashreplace").decode(encoding)
    for part in broken(known, line_width()):
        typer.secho(part, err=err, bold=bold or None, reset=bold)


def print_error(fault: PratiqueError) -> None:
    """Print the sentences of an error on standard error."""
    for sentence in fault.sentences:
        first, *more = sentence.split("\n")  # a list has one problem on each line
        for line in (first, *(" " * HANGING + problem for problem in more)):
            say(line, err=True)


def say_at_once(sentence: str) -> None:
    """Print a sentence at once, before a step that takes seconds."""
    say(sentence)
    sys.stdout.flush()


def show_list(values: Iterable[Any]) -> None:
    """Print a JSON list as `show` does, one value at a time: the list may be long."""
    for part in _json_list(values):
        typer.echo(part, nl=False)


def _json_list(values: Iterable[Any]) -> Iterator[str]:
    """Yield the text of a JSON list in parts, as `show` prints it, one value at a time."""
    before = "["
    for value in values:
        yield before + "\n" + indented(as_json_text(value), "  ")
        before = ","
    yield "[]\n" if before == "[" else "\n]\n"


def as_json_text(value: Any, indent: int | None = 2) -> str:
    """Return JSON; in ASCII if the terminal cannot show every character."""
    in_ascii = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    return pure_json(value, indent=indent, in_ascii=in_ascii)


def show(value: Any, *, as_json: bool, plain: Callable[[Any], None]) -> None:
    """Print a value as JSON, or as text with `plain`."""
    if as_json:
        typer.echo(as_json_text(value))
    else:
        plain(value)
