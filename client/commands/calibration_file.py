"""The file of a calibration: its content, and writing it for its owner only.

It holds figures of this country's records without noise. So its first field says that it is not
private, and it is not in any folder that a command sends.
"""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from client.errors import NodeFault
from client.home import NodeHome
from client.state.opt_out_confirmations import unconfirmed_sentence
from governance.errors import FileFault
from governance.runtime.text_files import read_bounded
from keys.errors import reason_of
from keys.files import replace_private, sync_directory, write_private
from keys.permissions import OWNER_DIRECTORY, refuse_if_shared
from protocols.wire.encoding import Digest

NOTICE: Literal["not private: never publish"] = "not private: never publish"
FILE = "calibration.json"
LARGEST = 1024 * 1024
Figure = float | dict[str, float]
"""A figure, or one for each level of the target."""


class Calibration(BaseModel):
    """A released model's calibration on the records of one country.

    `records` is the version of the records; `permit` the digest of the permit that allowed it.
    Errors are standard errors. `notes` are sentences that a reader must know.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    notice: Literal["not private: never publish"] = NOTICE
    kind: Literal["calibration"] = "calibration"
    schema_version: Literal[1] = 1
    study_id: str
    study: Digest
    run: str
    result: Digest
    model: Digest
    permit: Digest
    country: str
    target: str
    intercept: Figure
    slope: float
    intercept_error: Figure
    slope_error: float
    formula: str
    fitted_on: str
    patients: Annotated[int, Field(ge=1)]
    records: str
    calibrated: datetime
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the content of the file."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Written:
    """A calibration, and where its file is.

    `unconfirmed` is the number of entries of the opt-out list that match nobody and are not
    confirmed: if one is a patient's id in another form, that patient was not left out.
    """

    path: Path
    calibration: Calibration
    unconfirmed: int = 0


def report_lines(written: Written) -> Iterator[str]:
    """Yield what the operator reads, without a figure of the records."""
    calibration = written.calibration
    yield f"The model of {calibration.study_id} was calibrated on {calibration.fitted_on}."
    yield f"The file {written.path} is confidential ({NOTICE}). No command sends it."
    yield f"How to apply it: {calibration.formula}."
    for note in calibration.notes:
        yield f"Note: {note}."
    if written.unconfirmed:
        sentence = unconfirmed_sentence(written.unconfirmed)
        yield f"Note: {sentence}, and you have not confirmed them; see `pratique-node doctor`."


def require_outside(path: Path, home: NodeHome) -> None:
    """Raise NodeFault if `path` is in the node's folder, except in that of calibrations.

    The daemon reads files there, and a backup has copies of them.
    """
    place = path.parent.resolve()
    if place.is_relative_to(home.path.resolve()) and not place.is_relative_to(
        home.calibrations.resolve()
    ):
        raise NodeFault(
            f"The file {path} cannot be written",
            why="it is in the node's folder, of which there are backups",
            fix="leave out --out, or name a file in another folder; nothing was computed",
        )


def require_writable(path: Path, *, replace: bool) -> None:
    """Raise NodeFault if something is at `path`, unless it is a calibration to `replace`.

    Also if the folder does not exist.
    """
    if not path.parent.is_dir():
        raise NodeFault(
            f"The file {path} cannot be written",
            why="its folder does not exist",
            fix="make the folder, or name another file with --out; nothing was computed",
        )
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    if not replace:
        raise NodeFault(
            f"The file {path} exists already",
            why="a calibration is not replaced without your word",
            fix="add --replace, or name another file with --out; nothing was computed",
        )
    if not stat.S_ISREG(status.st_mode) or not _is_calibration(path):
        raise NodeFault(
            f"The file {path} is not replaced",
            why="it is not a calibration that this command wrote",
            fix="name another file with --out; nothing was computed",
        )


def make_private_folder(folder: Path, within: Path) -> None:
    """Make a folder below `within` that only its owner can open. Raises KeyFault, FileFault."""
    missing = [folder, *(part for part in folder.parents if part.is_relative_to(within))]
    for part in reversed([each for each in missing if each != within]):
        try:
            part.mkdir(mode=OWNER_DIRECTORY, exist_ok=True)
            refuse_if_shared(part, part.stat())
        except OSError as error:
            raise _unwritable(part, reason_of(error)) from None


def write_calibration(path: Path, calibration: Calibration, *, replace: bool) -> None:
    """Write the file with mode 0600; it is complete on disk when this returns.

    Without `replace`, nothing that exists is replaced, and no link is followed. Raises FileFault,
    or NodeFault if something is at the path.
    """
    data = calibration.text().encode()
    try:
        if replace:
            require_writable(path, replace=True)
            replace_private(path, data)
        else:
            _write_new(path, data)
    except FileExistsError:
        require_writable(path, replace=False)
        raise
    except OSError as error:
        raise _unwritable(path, reason_of(error)) from None


def _write_new(path: Path, data: bytes) -> None:
    """Write a complete file under a name that was free. Raises OSError."""
    draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        write_private(draft, data)
        os.link(draft, path, follow_symlinks=False)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    sync_directory(path.parent)


def _is_calibration(path: Path) -> bool:
    try:
        Calibration.model_validate_json(read_bounded(path, LARGEST))
    except (OSError, ValueError):
        return False
    return True


def _unwritable(path: Path, why: str) -> FileFault:
    return FileFault(
        f"The file {path} cannot be written",
        why=why,
        fix="correct the permissions or free space on the disk, or name another file with --out",
    )
