"""Each long test is in one shard, skips can be failures, and missing data files leave tests out."""

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.support import selection
from tests.support.shards import SECONDS, SHARDS, loads, shard_of

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
PLUGIN = ("-p", "tests.support.selection", "-p", "no:cacheprovider")
LONG = re.compile(r"pytest\.mark\.(slow|statistical|fault)\b")
LONGEST = 300 * 2
"""Seconds of work in a shard: five minutes on two cores."""
LONG_FILES = [
    path.relative_to(ROOT).as_posix()
    for path in sorted((ROOT / "tests").rglob("test_*.py"))
    if LONG.search(path.read_text(encoding="utf-8"))
]


def collected(pytester: pytest.Pytester, *words: str) -> list[str]:
    result = pytester.runpytest_inprocess(*PLUGIN, "--collect-only", "-q", *words)
    return [line for line in result.outlines if "::" in line]


def test_shards_partition_the_tests(pytester: pytest.Pytester) -> None:
    for number in range(4 * SHARDS):
        pytester.makepyfile(**{f"test_{number}": "def test_a(): pass\ndef test_b(): pass\n"})
    everything = collected(pytester)
    shards = [collected(pytester, "--shard", str(number)) for number in range(SHARDS)]
    assert Counter(test for shard in shards for test in shard) == Counter(everything)
    assert len(everything) == 8 * SHARDS
    assert all(shards)


def test_merges_run_the_shards_in_turn(pytester: pytest.Pytester) -> None:
    for number in range(4 * SHARDS):
        pytester.makepyfile(**{f"test_{number}": "def test_a(): pass\n"})
    for landing in (0, SHARDS - 1):
        later = collected(pytester, "--shard", str(landing + 7 * SHARDS))
        assert later == collected(pytester, "--shard", str(landing))


def test_a_file_is_always_in_the_same_shard(pytester: pytest.Pytester) -> None:
    for number in range(4 * SHARDS):
        pytester.makepyfile(**{f"test_{number}": "def test_a(): pass\n"})
    number = shard_of("test_0.py")
    assert collected(pytester, "--shard", str(number), "test_0.py") == ["test_0.py::test_a"]
    assert collected(pytester, "--shard", str(number + 1), "test_0.py") == []


def test_every_long_test_is_in_an_existing_shard() -> None:
    assert len(LONG_FILES) > 20
    assert {shard_of(file) for file in LONG_FILES} == set(range(SHARDS))


def test_every_measured_file_exists_and_has_long_tests() -> None:
    assert set(SECONDS) <= set(LONG_FILES)


def test_shards_have_similar_lengths() -> None:
    assert sum(loads()) == sum(SECONDS.values())
    assert max(loads()) <= LONGEST
    assert min(loads()) >= 0.8 * max(loads())


SKIPS = """
import pytest

def test_runs():
    pass

@pytest.mark.skipif(True, reason="no engine")
def test_marked():
    pass

def test_called():
    pytest.skip("no database")

@pytest.mark.xfail(reason="known", strict=True)
def test_expected():
    raise ValueError
"""


def test_a_skipped_test_is_normally_no_failure(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SKIPS)
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.assert_outcomes(passed=1, skipped=2, xfailed=1)
    assert result.ret == pytest.ExitCode.OK


def test_a_skip_fails_if_no_test_may_be_skipped(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SKIPS)
    result = pytester.runpytest_inprocess(*PLUGIN, "--no-skips")
    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes["xfailed"]) == (1, 1)
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == 2
    assert "skipped" not in outcomes
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*skipped, and no test may be: *no engine*", "*no database*"])


def test_a_skipped_file_fails_too(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\npytest.skip('no wheels', allow_module_level=True)\n")
    assert pytester.runpytest_inprocess(*PLUGIN).ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result = pytester.runpytest_inprocess(*PLUGIN, "--no-skips")
    assert result.ret != pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(["*skipped, and no test may be: *no wheels*"])


@pytest.mark.parametrize("here", [True, False])
def test_tests_that_need_the_hospitals_files_are_left_out_without_them(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    here: bool,
) -> None:
    files = pytester.mkdir("files") if here else pytester.path / "missing"
    monkeypatch.setattr(selection, "HOSPITALS", files)
    pytester.makeini("[pytest]\nmarkers = hospitals: needs files\n")
    pytester.makepyfile(
        "import pytest\n\n@pytest.mark.hospitals\ndef test_a(): pass\n\ndef test_b(): pass\n"
    )
    result = pytester.runpytest_inprocess(*PLUGIN, "--no-skips")
    result.assert_outcomes(passed=2 if here else 1, deselected=0 if here else 1)
    assert ("were left out" in result.stdout.str()) != here
