"""Options of the coordinator's commands, and their requests to the running daemon."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from governance.runtime.cli_support import home_option
from governance.runtime.local_rpc import ask

if TYPE_CHECKING:
    from server.answers import Answer

    AnyAnswer = TypeVar("AnyAnswer", bound=Answer)


HomeOption = Annotated[Path, home_option("The coordinator's folder.")]
DEFAULT_HOME = Path("~/.pratique/coordinator")


def request(home: Path, method: str, seconds: float | None = 120.0, **params: Any) -> Any:
    """Return the running daemon's answer to a request, as JSON values."""
    from server.home import CoordinatorHome  # noqa: PLC0415 (keeps --help quick)

    return ask(CoordinatorHome(home).socket, method, seconds, **params)


def parsed(model: "type[AnyAnswer]", answer: Any) -> "AnyAnswer":
    """Return the daemon's answer as a model. Raises CoordinatorFault if it does not fit."""
    from pydantic import ValidationError  # noqa: PLC0415 (keeps --help quick)

    from server.errors import CoordinatorFault  # noqa: PLC0415

    try:
        return model.model_validate(answer)
    except ValidationError as error:
        field = ".".join(map(str, error.errors()[0]["loc"]))
        raise CoordinatorFault(
            "The daemon's answer cannot be read",
            why=f"the field `{field}` is missing or not as expected",
            fix="use the command of the same version as the daemon",
        ) from error


def on_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout.isatty()
