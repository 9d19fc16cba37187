"""What every command shares: where home is, how a passphrase comes, how answers are printed."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from governance.local import ask
from keys.errors import PratiqueError

HomeOption = Annotated[
    Path,
    typer.Option(
        "--home", envvar="PRATIQUE_HOME", help="The coordinator's folder.", show_default=False
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="File that holds the key store's passphrase."),
]
PassphraseFd = Annotated[
    int | None, typer.Option("--passphrase-fd", help="Open descriptor to read it from.")
]
DEFAULT_HOME = Path.home() / ".pratique" / "coordinator"


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
        raise typer.Exit(130) from stopped


def request(home: Path, method: str, seconds: float | None = 120.0, **params: Any) -> Any:
    """Return the running daemon's answer."""
    from server.home import CoordinatorHome  # noqa: PLC0415 (keeps --help quick)

    return ask(CoordinatorHome(home).socket, method, seconds, **params)


def show(value: Any, *, as_json: bool, plain: Callable[[Any], None]) -> None:
    """Print a value as JSON, or by `plain`."""
    if as_json:
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
    else:
        plain(value)


def on_terminal() -> bool:
    """Whether a person watches standard output."""
    return sys.stdout.isatty()
