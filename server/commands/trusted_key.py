"""Finds a result's folder, and the key that must have signed the result.

This is the coordinator's document key in the signed agreement, or a key given by `--key`.
"""

from pathlib import Path

from governance.results.result import RESULT_FILE
from keys.clock import utc_now
from keys.identity import VerifyKey
from server.errors import CoordinatorFault
from server.home import CoordinatorHome
from server.published_view import read_published_view


def trusted_key(home: Path, key: str | None) -> VerifyKey:
    """Return the given key, or the coordinator's document key in the signed agreement.

    Raises CoordinatorFault if there is neither.
    """
    if key is not None:
        return VerifyKey.from_text(key)
    try:
        view = read_published_view(CoordinatorHome(home), utc_now())
    except CoordinatorFault as fault:
        raise CoordinatorFault(
            "The coordinator's document key is not known here",
            why=f"it is in the agreement, and the folder {home} has none",
            fix="give the key of the coordinator with --key, or the coordinator's folder with "
            "--home",
        ) from fault
    return VerifyKey.from_text(view.agreement.coordinator.document_key)


def find_result_folder(home: Path, name: str) -> Path:
    """Return the folder of a result, named by path or by study id. Raises CoordinatorFault."""
    results = CoordinatorHome(home).results
    for folder in (Path(name), results / name):
        if (folder / RESULT_FILE).is_file():
            return folder
    known = sorted(path.parent.name for path in results.glob(f"*/{RESULT_FILE}"))
    raise CoordinatorFault(
        f"There is no result {name!r}",
        why=f"the released results are: {', '.join(known) or 'none yet'}",
        fix="name a study's id, or the folder that contains result.json",
    )
