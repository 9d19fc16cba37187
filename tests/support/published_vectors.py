"""Published vectors that lie beside the project, where they do."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "vectors"


def vectors(folder: str, pattern: str = "**/*.json") -> list[object]:
    """Return the vector files as test parameters; one skipped one where they are absent."""
    found = sorted((SHARED / folder).glob(pattern))
    if found:
        return [pytest.param(path, id=str(path.relative_to(SHARED / folder))) for path in found]
    absent = pytest.mark.skip(reason=f"../shared/vectors/{folder} is not on this machine")
    return [pytest.param(None, id="absent", marks=absent)]
