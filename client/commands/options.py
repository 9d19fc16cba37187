"""Options that several groups of the node's commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from governance.runtime.cli_support import home_option

if TYPE_CHECKING:
    from client.home import NodeHome
    from client.settings import NodeSettings
    from keys.store import KeyStore

DEFAULT_HOME = Path("~/.pratique/node")
HomeOption = Annotated[Path, home_option("The node's folder.")]


def node_home(path: Path) -> "NodeHome":
    """Return the node's folder."""
    from client.home import NodeHome  # noqa: PLC0415 (keeps --help quick)

    return NodeHome(path)


def unlocked(home: "NodeHome", file: Path | None, fd: int | None) -> "KeyStore":
    """Return the node's key store, opened with the passphrase of the operator."""
    from governance.runtime.passphrases import known_passphrase  # noqa: PLC0415
    from keys.store import KeyStore  # noqa: PLC0415

    return KeyStore.open(home.keys, known_passphrase(file, fd))


def new_settings(**fields: Any) -> "NodeSettings":
    """Return the settings of a new node. Raises BadParameter that names the option."""
    from pydantic import ValidationError  # noqa: PLC0415 (keeps --help quick)

    from client.settings import NodeSettings  # noqa: PLC0415
    from governance.documents.problems import first_problem  # noqa: PLC0415

    try:
        return NodeSettings(**fields)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise typer.BadParameter(
            EXPECTED.get(name) or first_problem(NodeSettings, error),
            param_hint=f"--{OPTIONS.get(name, name).replace('_', '-')}",
        ) from error


OPTIONS = {"person_register": "register"}
EXPECTED = {
    "person_register": "small letters, digits and hyphens, as in the agreement",
}
