"""Reading what a person names on the command line."""

from pathlib import Path

from server.errors import OperationFault


def read_text(path: Path) -> str:
    """Return the text of a document file. Raises OperationFault where it cannot be read."""
    from governance.documents.models import MOST_BYTES  # noqa: PLC0415 (keeps --help quick)

    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode("utf-8")
    except OSError as error:
        raise OperationFault(
            f"{path} cannot be read",
            why=error.strerror or str(error),
            fix="check the name of the file and that you may read it",
        ) from error
    except UnicodeDecodeError as error:
        raise OperationFault(f"{path} is not UTF-8 text") from error
    if len(content) > MOST_BYTES:
        raise OperationFault(f"{path} is larger than {MOST_BYTES // 1024} kB")
    return text
