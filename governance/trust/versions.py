"""Which versions of the documents somebody holds, and who is behind whom."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from protocols.private_sum.context import DocumentVersions


@dataclass(frozen=True)
class Versions:
    """Versions of root, of targets and of each country's documents."""

    root: int
    targets: int
    countries: Mapping[str, int] = field(default_factory=dict)

    def behind(self, other: "Versions") -> tuple[str, ...]:
        """Return what of mine is older than theirs: `root`, `targets`, country codes."""
        theirs, mine = other.by_name(), self.by_name()
        return tuple(name for name, version in theirs.items() if version > mine.get(name, 0))

    def claimed(self) -> DocumentVersions:
        """Return what a message says of them."""
        return DocumentVersions(self.root, self.targets, dict(self.countries))

    def by_name(self) -> dict[str, int]:
        """Return every version: of `root`, of `targets`, and of each country by its code."""
        return {"root": self.root, "targets": self.targets, **dict(sorted(self.countries.items()))}
