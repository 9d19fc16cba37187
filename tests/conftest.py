"""What holds for every test: Hypothesis sets no time limits, as other work shares the machine."""

import os

from hypothesis import HealthCheck, settings

from tests.support import speed
from tests.support.prepared import PREPARED

pytest_plugins = ["tests.support.selection"]

settings.register_profile(
    "shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared-machine")


def pytest_configure() -> None:
    speed.keep_folders_in_memory()
    speed.share_sql_texts()
    speed.share_duckdb()
    speed.migrate_once()


def pytest_collection_finish() -> None:
    speed.spare_the_collector()
    PREPARED.begin(os.environ.get(speed.PLACE))
