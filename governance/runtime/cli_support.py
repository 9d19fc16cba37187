"""What the commands of all three programs share: options, plain errors, answers as text or JSON."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import indent
from typing import Annotated, Any

import typer

from governance.runtime.safe_text import shown
from keys.errors import PratiqueError, reason_of

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", help="File that holds the key store's passphrase.", readable=False
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
        readable=False,
    ),
]
INTERRUPTED, BROKEN_PIPE = 130, 141
"""Exit status as in a shell: 128 plus the signal's number (SIGINT, SIGPIPE)."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Print an expected error as plain sentences and exit with status 1."""
    try:
        yield
    except PratiqueError as fault:
        print_error(fault)
        raise typer.Exit(1) from fault
    except BrokenPipeError as error:
        _discard_output()
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


def _discard_output() -> None:
    """Discard standard output: its reader has closed it, and it is flushed again at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def print_error(fault: PratiqueError) -> None:
    """Print the sentences of an error on standard error."""
    for sentence in fault.sentences:
        print("\n".join(map(shown, sentence.split("\n"))), file=sys.stderr)


def say_at_once(sentence: str) -> None:
    """Print a sentence at once, before a step that takes seconds."""
    typer.echo(sentence)
    sys.stdout.flush()


def json_list(values: Iterable[Any]) -> Iterator[str]:
    """Yield the text of a JSON list in parts, as `show` prints it, one value at a time."""
    before = "["
    for value in values:
        yield before + "\n" + indent(_json(value), "  ")
        before = ","
    yield "[]\n" if before == "[" else "\n]\n"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def show(value: Any, *, as_json: bool, plain: Callable[[Any], None]) -> None:
    """Print a value as JSON, or as text with `plain`."""
    if as_json:
        typer.echo(_json(value))
    else:
        plain(value)
