from collections.abc import Iterator

import pytest

from tests.support.captured_logs import Configure, Lines, restored_logging


@pytest.fixture
def configured() -> Iterator[Configure]:
    """Configure logs as a daemon does."""
    with restored_logging() as configure:
        yield configure


@pytest.fixture
def lines(configured: Configure) -> Lines:
    """All lines that are logged during the test."""
    stream = Lines()
    configured(stream=stream)
    return stream
