"""What a person reads and names on the command line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from server.errors import GONE, OperationFault


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


UNITS = ((86_400, "days"), (3_600, "hours"), (60, "minutes"), (1, "s"))


def resumed_words(resumed: Mapping[str, Any]) -> str:
    """Say how often a run was carried on after its process, Flower or the coordinator ended.

    `resumed` is what the desk says: how many `times`, and last how many `seconds_ago`.
    """
    often = {1: "once", 2: "twice"}.get(resumed["times"], f"{resumed['times']} times")
    seconds = resumed["seconds_ago"]
    size, unit = next((one for one in UNITS if seconds >= 2 * one[0]), UNITS[-1])
    return f"resumed {often}, last {seconds / size:.0f} {unit} ago"


def missed_words(missed: Mapping[str, str]) -> str:
    """Say what to do about countries that failed a round, given by country why."""
    left = [country for country, cause in missed.items() if cause == GONE]
    others = [country for country in missed if country not in left]
    parts = (_away_words(others) if others else "", _left_words(left) if left else "")
    return f"to do: {'; '.join(part for part in parts if part)}"


def _away_words(countries: Sequence[str]) -> str:
    there = ", ".join(countries)
    return (
        f"ask the operator of {there} for `pratique-node status`; {there} can be back in "
        "any later round"
    )


def _left_words(countries: Sequence[str]) -> str:
    there = ", ".join(countries)
    return (
        f"ask the operator of {there} for `pratique-node status`: where its officer withdrew, "
        f"or the run ended there, {there} is not back in this run"
    )
