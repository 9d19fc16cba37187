"""Settings of every test. Hypothesis has no time limits, because other work shares the machine."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support import speed
from tests.support.examples import THOROUGH, examples
from tests.support.prepared import PREPARED

pytest_plugins = ["tests.support.selection"]

SLOW_IS_FINE = [HealthCheck.too_slow]
settings.register_profile(THOROUGH, deadline=None, suppress_health_check=SLOW_IS_FINE)
settings.register_profile(
    "shared-machine",
    deadline=None,
    suppress_health_check=SLOW_IS_FINE,
    max_examples=examples(100),
)
settings.load_profile("shared-machine")


LONG_LINES = pytest.MonkeyPatch()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    """Let commands print long lines during a test: tests look for sentences in them."""
    LONG_LINES.setenv("COLUMNS", "9999")
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Give pytest its own width back."""
    try:
        return (yield)
    finally:
        LONG_LINES.undo()


def pytest_configure() -> None:
    speed.keep_folders_in_memory()
    speed.share_sql_texts()
    speed.share_duckdb()
    speed.migrate_once()
    speed.build_commands_once()
    speed.collect_no_garbage_in_daemons()


def pytest_collection_finish() -> None:
    speed.freeze_imported_objects()
    PREPARED.begin(os.environ.get(speed.PLACE))
