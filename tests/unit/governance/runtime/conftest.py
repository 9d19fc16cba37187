from collections.abc import Iterator

import pytest

from tests.support.captured_logs import Configure, Lines, logging_put_back


@pytest.fixture
def configured() -> Iterator[Configure]:
    """Configure logs as a daemon does."""
    with logging_put_back() as configure:
        yield configure


@pytest.fixture
def lines(configured: Configure) -> Lines:
    """Every line logged meanwhile."""
    stream = Lines()
    configured(stream=stream)
    return stream
