"""How much each party may publish: checked on signed lists, before any document is fetched.

Each country and the coordinator has an allowance of its own. So nobody's excess takes the place of
another party's documents, and a mirror of all of them is bounded: see `most_mirrored`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuf.api.metadata import TargetFile

from governance.documents.models import MAX_BYTES
from governance.runtime.wording import counted

KIB, MIB = 2**10, 2**20
MOST_ROOTS = 256
"""The most changes of the root that a reader follows from the one it has pinned."""
MOST_TOP_BYTES = 256 * KIB
"""The largest root, targets or snapshot; with 100 parties each has less than 70 kB."""
MOST_TIMESTAMP_BYTES = 16 * KIB
MOST_ROLE_BYTES = MIB
"""The largest list of one party's documents; each line of it has about 200 bytes."""


@dataclass(frozen=True)
class Allowance:
    """The most documents of one party, and the most bytes that they may have together."""

    documents: int
    total: int

    def excess(self, targets: Iterable[TargetFile]) -> str:
        """Return what is too much, to follow the party's name; empty if everything fits."""
        return self.excess_of([target.length for target in targets])

    def excess_of(self, lengths: Sequence[int]) -> str:
        """Return the same, for documents of these lengths in bytes."""
        if len(lengths) > self.documents:
            return f"lists {counted(len(lengths), 'document')}, and at most {self.documents} count"
        if sum(lengths) > self.total:
            return f"lists documents of {sum(lengths)} bytes, and at most {self.total} count"
        if max(lengths, default=0) > MAX_BYTES:
            return f"lists a document of {max(lengths)} bytes, and each may have {MAX_BYTES}"
        return ""

    def fitting(self, targets: Iterable[TargetFile]) -> list[TargetFile]:
        """Return the first of these documents, as many as fit."""
        chosen: list[TargetFile] = []
        left = self.total
        for target in targets:
            if len(chosen) < self.documents and target.length <= min(left, MAX_BYTES):
                chosen.append(target)
                left -= target.length
        return chosen


OF_COUNTRY = Allowance(documents=2_000, total=2 * MIB)
"""About a thousand studies, with a permit and its withdrawal each."""
WITHDRAWAL_BYTES = KIB
"""What an officer's folder keeps free for the withdrawal of each permit."""
OF_COORDINATOR = Allowance(documents=2_000, total=16 * MIB)
"""The coordinator's studies; nobody's mirror holds its releases."""


def most_bytes(name: str) -> int:
    """Return the size in bytes of the largest published file with such a name."""
    if not name.startswith("metadata/"):
        return MAX_BYTES
    role = name.removeprefix("metadata/").removesuffix(".json").rpartition(".")[2]
    if role == "timestamp":
        return MOST_TIMESTAMP_BYTES
    return MOST_TOP_BYTES if role in {"root", "targets", "snapshot"} else MOST_ROLE_BYTES


def most_mirrored(countries: int, roots: int) -> int:
    """Return the bytes of the largest mirror, with so many countries and newer roots."""
    top = MOST_TIMESTAMP_BYTES + (roots + 2) * MOST_TOP_BYTES + MAX_BYTES
    party = MOST_ROLE_BYTES + OF_COUNTRY.total
    return top + countries * party + MOST_ROLE_BYTES + OF_COORDINATOR.total
