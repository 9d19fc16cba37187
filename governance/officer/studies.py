"""Studies by the names that an officer types, and those decided on, kept for when no link is."""

from collections.abc import Iterable
from pathlib import Path

from governance.documents.purposes import nearest
from governance.documents.study import Study
from governance.officer.errors import OfficerFault
from governance.runtime.files import write_atomic

SHORTEST_DIGEST = 8
"""Hexadecimal digits of a digest that are enough where only one study begins so."""


def find_study(studies: Iterable[Study], name: str) -> Study:
    """Return the study with this id, digest, or beginning of a digest.

    Raises OfficerFault if there is none, or an id has more than one text.
    """
    known = {study.digest: study for study in studies}
    found = [study for study in known.values() if is_named(study, name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise OfficerFault(
            f"{name} is the name of {len(found)} studies",
            why=f"their digests are {', '.join(study.digest for study in found)}",
            fix="name the one you mean by its digest",
        )
    ids = {study.id: study for study in known.values()}
    raise OfficerFault(
        f"There is no study {name!r}{nearest(name, ids)}",
        why=f"published are: {', '.join(sorted(ids)) or 'none yet'}",
        fix="use the id or the digest that `pratique-officer inbox` shows",
    )


def is_named(study: Study, name: str) -> bool:
    """Whether this is the study's id, its digest or a long enough beginning of that."""
    wanted = name.removeprefix("sha256:")
    hexadecimal = study.digest.removeprefix("sha256:")
    return name == study.id or (len(wanted) >= SHORTEST_DIGEST and hexadecimal.startswith(wanted))


def keep_study(directory: Path, study: Study) -> None:
    """Keep a study that was decided on."""
    write_atomic(directory / f"{study.digest.removeprefix('sha256:')}.json", study.canonical())


def kept_studies(directory: Path) -> list[Study]:
    """Return the studies decided on. Raises DocumentFault where one was damaged."""
    return [Study.from_canonical(file.read_bytes()) for file in sorted(directory.glob("*.json"))]
