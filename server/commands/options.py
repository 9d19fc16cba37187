"""Where the coordinator's home is, and how its commands reach the running daemon."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from governance.runtime.local_rpc import ask


def _whole(home: Path) -> Path:
    """Flower's processes run elsewhere: the folder's name has to mean the same to them."""
    return home.expanduser().resolve()


HomeOption = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="PRATIQUE_HOME",
        help="The coordinator's folder.",
        show_default=False,
        callback=_whole,
    ),
]
DEFAULT_HOME = Path.home() / ".pratique" / "coordinator"


def request(home: Path, method: str, seconds: float | None = 120.0, **params: Any) -> Any:
    """Return the running daemon's answer."""
    from server.home import CoordinatorHome  # noqa: PLC0415 (keeps --help quick)

    return ask(CoordinatorHome(home).socket, method, seconds, **params)


def on_terminal() -> bool:
    """Whether a person watches standard output."""
    return sys.stdout.isatty()
