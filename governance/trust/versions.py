"""Which versions of the documents somebody holds, and who is behind whom."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Versions:
    """Versions of root, of targets and of each country's documents."""

    root: int
    targets: int
    countries: Mapping[str, int] = field(default_factory=dict)

    def behind(self, other: "Versions") -> tuple[str, ...]:
        """Return what of mine is older than theirs: `root`, `targets`, country codes."""
        raise NotImplementedError
