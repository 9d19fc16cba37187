"""Options that several groups of the node's commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from client.home import NodeHome
    from keys.store import KeyStore

DEFAULT_HOME = Path.home() / ".pratique" / "node"
HomeOption = Annotated[
    Path,
    typer.Option("--home", envvar="PRATIQUE_HOME", help="The node's folder.", readable=False),
]


def node_home(path: Path) -> "NodeHome":
    """Return the node's folder by its absolute path."""
    from client.home import NodeHome  # noqa: PLC0415 (keeps --help quick)

    return NodeHome(path.expanduser().resolve())


def unlocked(home: "NodeHome", file: Path | None, fd: int | None) -> "KeyStore":
    """Return the node's key store, opened with the passphrase of the operator."""
    from governance.runtime.passphrases import known_passphrase  # noqa: PLC0415
    from keys.store import KeyStore  # noqa: PLC0415

    return KeyStore.open(home.keys, known_passphrase(file, fd))
