"""Set how many examples Hypothesis tries: a part of them usually, all with the slow tests."""

from hypothesis import settings

THOROUGH = "thorough"
"""The profile that `make test-all` asks for."""
FEWEST = 10


def examples(count: int) -> int:
    """Return how many of `count` examples this session tries."""
    thorough = settings.get_current_profile_name() == THOROUGH
    return count if thorough else max(FEWEST, count // 4)
