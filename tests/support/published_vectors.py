"""Find published test vectors in the folder beside the project, if they are there."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "vectors"


def vectors(folder: str, pattern: str = "**/*.json") -> list[object]:
    """Return the vector files as test parameters; if there are none, one that is skipped."""
    files = sorted((SHARED / folder).glob(pattern))
    if files:
        return [pytest.param(path, id=str(path.relative_to(SHARED / folder))) for path in files]
    absent = pytest.mark.skip(reason=f"../shared/vectors/{folder} is not on this machine")
    return [pytest.param(None, id="absent", marks=absent)]
