"""Find studies by the names that an officer types, and store those that were decided on."""

from collections.abc import Iterable
from pathlib import Path

from governance.documents.purposes import nearest
from governance.documents.study import Study
from governance.officer.errors import OfficerFault
from governance.runtime.files import write_atomic

SHORTEST_DIGEST = 8
"""The fewest hexadecimal digits by which an officer can name a study's digest."""


def find_study(studies: Iterable[Study], name: str) -> Study:
    """Return the study with this id, digest, or beginning of a digest.

    Raises OfficerFault if there is none, or more than one.
    """
    known = {study.digest: study for study in studies}
    matches = [study for study in known.values() if is_named(study, name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise OfficerFault(
            f"The name {name} fits {len(matches)} studies",
            why=f"their digests are {', '.join(study.digest for study in matches)}",
            fix="name the one you mean by its digest",
        )
    ids = {study.id: study for study in known.values()}
    raise OfficerFault(
        f"There is no study {name!r}{nearest(name, ids)}",
        why=f"the published studies are: {', '.join(sorted(ids)) or 'none yet'}",
        fix="use the id or the digest that `pratique-officer inbox` shows",
    )


def is_named(study: Study, name: str) -> bool:
    """Whether this is the study's id, its digest or a long enough beginning of the digest."""
    wanted = name.removeprefix("sha256:")
    hexadecimal = study.digest.removeprefix("sha256:")
    return name == study.id or (len(wanted) >= SHORTEST_DIGEST and hexadecimal.startswith(wanted))


def keep_study(directory: Path, study: Study) -> None:
    """Store a study that was decided on, so that it can be read without the exchange."""
    write_atomic(directory / f"{study.digest.removeprefix('sha256:')}.json", study.canonical())


def kept_studies(directory: Path) -> list[Study]:
    """Return the studies decided on. Raises DocumentFault if one is damaged."""
    return [Study.from_canonical(file.read_bytes()) for file in sorted(directory.glob("*.json"))]
