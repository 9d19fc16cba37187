"""Studies by the names that an officer types, and those decided on, kept for when no link is."""

from collections.abc import Iterable
from pathlib import Path

from governance.documents.study import Study
from governance.officer.errors import OfficerFault
from governance.purposes import nearest
from governance.trust.files import write_atomic

SHORTEST_DIGEST = 8
"""Hexadecimal digits of a digest that are enough where only one study begins so."""


def find_study(studies: Iterable[Study], name: str) -> Study:
    """Return the study with this id, digest, or beginning of a digest. Raises OfficerFault."""
    by_id = {study.id: study for study in studies}
    if name in by_id:
        return by_id[name]
    wanted = name.removeprefix("sha256:")
    if len(wanted) >= SHORTEST_DIGEST:
        found = [s for s in by_id.values() if s.digest.removeprefix("sha256:").startswith(wanted)]
        if len(found) == 1:
            return found[0]
    raise OfficerFault(
        f"There is no study {name!r}{nearest(name, by_id)}",
        why=f"published are: {', '.join(sorted(by_id)) or 'none yet'}",
        fix="use the id or the digest that `pratique-officer inbox` shows",
    )


def keep_study(directory: Path, study: Study) -> None:
    """Keep a study that was decided on."""
    write_atomic(directory / f"{study.digest.removeprefix('sha256:')}.json", study.canonical())


def kept_studies(directory: Path) -> list[Study]:
    """Return the studies decided on. Raises DocumentFault where one was damaged."""
    return [Study.from_canonical(file.read_bytes()) for file in sorted(directory.glob("*.json"))]
