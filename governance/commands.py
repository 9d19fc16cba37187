"""What the commands of all three programs share: options, plain errors, answers as text or JSON."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from keys.errors import PratiqueError

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="File that holds the key store's passphrase."),
]
PassphraseFd = Annotated[
    int | None, typer.Option("--passphrase-fd", help="Open descriptor to read it from.")
]
LogFileOption = Annotated[
    Path | None,
    typer.Option("--log-file", help="File for log lines; it rotates. Else standard error."),
]
INTERRUPTED = 130


@contextmanager
def plain_errors() -> Iterator[None]:
    """Print an expected error as plain sentences and end with status 1."""
    try:
        yield
    except PratiqueError as fault:
        typer.echo(f"{fault}", err=True)
        raise typer.Exit(1) from fault
    except OSError as error:
        about = f"{error.filename}: " if error.filename else ""
        typer.echo(f"{about}{error.strerror or error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as stopped:
        raise typer.Exit(INTERRUPTED) from stopped


def say_at_once(sentence: str) -> None:
    """Print a sentence before something that takes seconds."""
    typer.echo(sentence)
    sys.stdout.flush()


def show(value: Any, *, as_json: bool, plain: Callable[[Any], None]) -> None:
    """Print a value as JSON, or by `plain`."""
    if as_json:
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
    else:
        plain(value)
