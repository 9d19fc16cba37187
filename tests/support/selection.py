"""Select tests with pytest options: one shard, skips that fail, and tests that need files.

The long tests are those marked slow, statistical or fault. A shard has whole files, so that the
fixtures of a file are set up only once.
"""

from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.support.shards import SHARDS, shard_of

ROOT = Path(__file__).parents[2]
HOSPITALS = ROOT.parent / "shared" / "data" / "heart-disease"
"""The four hospitals' files; they are not part of the project."""
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--shard` and `--no-skips`."""
    parser.addoption(
        "--shard", type=int, metavar="N", help=f"run only shard N modulo {SHARDS} of the files"
    )
    parser.addoption("--no-skips", action="store_true", help="a skipped test counts as failed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of other shards, and those whose files are not here."""
    number: int | None = config.getoption("shard")
    _keep(config, items, [number is None or shard_of(_file(i)) == number % SHARDS for i in items])
    here = HOSPITALS.is_dir()
    _keep(config, items, [here or i.get_closest_marker("hospitals") is None for i in items])


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _keep(config: pytest.Config, items: list[pytest.Item], wanted: Iterable[bool]) -> None:
    pairs = list(zip(items, wanted, strict=True))
    config.hook.pytest_deselected(items=[item for item, keep in pairs if not keep])
    items[:] = [item for item, keep in pairs if keep]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print that tests were left out because their files are not here."""
    if not HOSPITALS.is_dir():
        terminalreporter.write_line(
            "The hospitals' files are not beside the project: tests that need them were left out"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count a skipped test as failed if `--no-skips` is given."""
    return _judged(item.config, (yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Count a skipped file as failed if `--no-skips` is given."""
    return _judged(collector.config, (yield))


def _judged(config: pytest.Config, report: Report) -> Report:
    if report.skipped and config.getoption("no_skips") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and no test may be: {_reason(report.longrepr)}"
    return report


def _reason(longrepr: Any) -> str:
    return str(longrepr[2] if isinstance(longrepr, tuple) else longrepr)
