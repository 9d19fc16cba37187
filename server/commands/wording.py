"""Texts that several commands print or read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from keys.errors import reason_of
from server.errors import GONE, CoordinatorFault

if TYPE_CHECKING:
    from server.answers import Resumptions

UNITS = ((86_400, "days"), (3_600, "hours"), (60, "minutes"), (1, "s"))


def read_text(path: Path) -> str:
    """Return the text of a document file. Raises CoordinatorFault if it cannot be read."""
    from governance.documents.models import MAX_BYTES  # noqa: PLC0415 (keeps --help quick)

    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8")
    except OSError as error:
        raise CoordinatorFault(
            f"The file {path} cannot be read",
            why=reason_of(error),
            fix="check the file's name and that you may read it",
        ) from error
    except UnicodeDecodeError as error:
        raise CoordinatorFault(
            f"The file {path} is not UTF-8 text",
            why="a document is a YAML file in UTF-8",
            fix="save the file in UTF-8",
        ) from error
    if len(content) > MAX_BYTES:
        raise CoordinatorFault(
            f"The file {path} is larger than {MAX_BYTES // 1024} kB",
            why="no document may be larger",
            fix="check that this is the right file",
        )
    return text


def resumed_words(resumed: "Resumptions") -> str:
    """Return how often a run was resumed after its process, Flower or the coordinator ended."""
    often = {1: "once", 2: "twice"}.get(resumed.times, f"{resumed.times} times")
    seconds = resumed.seconds_ago or 0.0
    size, unit = next((unit for unit in UNITS if seconds >= 2 * unit[0]), UNITS[-1])
    return f"resumed {often}, last {seconds / size:.0f} {unit} ago"


def minimum_words(minimum_countries: Mapping[str, int]) -> str:
    """Return the largest number of countries that permits demand, and whose permits; or nothing."""
    if not minimum_countries:
        return ""
    largest = max(minimum_countries.values())
    whose = [country for country, number in minimum_countries.items() if number == largest]
    return f"no sum over fewer than {largest} countries: permit of {', '.join(whose)}"


def missed_words(causes: Mapping[str, str]) -> str:
    """Return what to do after countries failed a round; `causes` are by country."""
    left = [country for country, cause in causes.items() if cause == GONE]
    away = [country for country in causes if country not in left]
    parts = (_away_words(away) if away else "", _left_words(left) if left else "")
    return f"to do: {'; '.join(part for part in parts if part)}"


def _away_words(countries: Sequence[str]) -> str:
    names = ", ".join(countries)
    return (
        f"ask the operator of {names} for `pratique-node status`; {names} can be back in "
        "any later round"
    )


def _left_words(countries: Sequence[str]) -> str:
    names = ", ".join(countries)
    return (
        f"ask the operator of {names} for `pratique-node status`; if its officer withdrew, or the "
        f"run ended on that node, {names} is not back in this run"
    )
