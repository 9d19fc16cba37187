"""Settings of every test. Hypothesis has no time limits, because other work shares the machine."""

import os

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


def pytest_configure() -> None:
    os.environ["COLUMNS"] = "9999"  # tests look for sentences; how lines are broken has its own
    speed.keep_folders_in_memory()
    speed.share_sql_texts()
    speed.share_duckdb()
    speed.migrate_once()
    speed.build_commands_once()
    speed.collect_no_garbage_in_daemons()


def pytest_collection_finish() -> None:
    speed.freeze_imported_objects()
    PREPARED.begin(os.environ.get(speed.PLACE))
