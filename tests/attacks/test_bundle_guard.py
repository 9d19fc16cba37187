"""Attacks on the bundle guard: names, variables and folders that would make another program run.

Each bundle would run in a Flower without the guard. Its code only makes a file.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import CoordinatorFault
from server.flower import guard_check
from server.flower.guard_check import require_guard
from server.flower.launcher import LAUNCHER, PROGRAMS
from server.flower.superlink import SuperLink
from tests.support.stand_in_app import write_launcher

pytestmark = [
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern"),  # flwr packs so
    pytest.mark.timeout(240),
]
STOCK_APP = (
    "sys.argv += ['--token', sys.stdin.read()]; "
    "launcher.PROGRAMS = {launcher.SERVER_APP: ('flwr.superlink.cli', 'flwr_serverapp')}"
)
"""A server app as Flower starts it, without the guard."""
FOLDERS = [
    "prod:1",
    "a b\t'c' \"d\" $(touch e) `f` ;g %h [i] ~ ü\nj",
]
FOUND_BY_NAME = ("flwr-serverapp", "flwr-agentapp", "flower-superexec", "flwr", "setpriv", "python")


@pytest.fixture
def traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An environment in which every look-up by name finds a stranger's program or module."""
    trace, folder = tmp_path / "trace", tmp_path / "traps"
    folder.mkdir()
    for name in FOUND_BY_NAME:
        file = folder / name
        file.write_text(f"#!/bin/sh\necho {name} >> '{trace}'\n")
        file.chmod(stat.S_IRWXU)
    for name in ("sitecustomize", "usercustomize", "server", "flwr", "httpx"):
        (folder / f"{name}.py").write_text(f"open({str(trace)!r}, 'a').write('{name}')\n")
    for name in ("PATH", "PYTHONPATH", "HOME", "PYTHONHOME", "PYTHONUSERBASE", "TMPDIR"):
        monkeypatch.setenv(name, str(folder))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("FLWR_HOME", str(folder))
    monkeypatch.chdir(folder)
    yield trace
    assert not trace.exists(), trace.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_the_guard_refuses_in_any_folder_and_any_environment(
    tmp_path: Path, name: str, traps: Path
) -> None:
    link = SuperLink(tmp_path / name / "superlink", environment={})
    try:
        link.start()
        require_guard(link)
        assert not traps.exists()
        (row,) = link.runs()  # `flwr list` works there as well
        assert row["status"] == "finished:failed"
        assert not [file for file in link.home.rglob("*") if _is_executable(file)]
    finally:
        link.close()


def _is_executable(file: Path) -> bool:
    """A mount option could forbid the start of a file in the coordinator's folder."""
    return file.is_file() and bool(file.stat().st_mode & 0o111)


@pytest.mark.slow
def test_the_check_finds_a_flower_without_a_guard(tmp_path: Path) -> None:
    """The code of the bundle runs here, so it would have run in the tests above."""
    launcher = write_launcher(tmp_path, STOCK_APP)
    link = SuperLink(tmp_path / "superlink", environment={}, launcher=launcher)
    try:
        link.start()
        with pytest.raises(CoordinatorFault) as caught:
            require_guard(link)
        assert caught.value.why == "code of a bundle was executed"
    finally:
        link.close()


@pytest.mark.slow
def test_the_check_finds_an_executor_that_starts_nothing(tmp_path: Path) -> None:
    launcher = write_launcher(tmp_path, "sys.exit(1)")
    link = SuperLink(tmp_path / "superlink", environment={}, launcher=launcher)
    try:
        link.start()
        with pytest.raises(CoordinatorFault) as caught:
            require_guard(link, seconds=5)
        assert "had not ended" in caught.value.why
    finally:
        link.close()


VARIABLES = st.dictionaries(
    st.from_regex(r"\A[A-Za-z_][A-Za-z_0-9]{0,20}\Z"),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30),
    max_size=6,
)
PARTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=20
)


@given(variables=VARIABLES, part=PARTS)
def test_no_folder_and_no_variable_changes_what_is_started(
    variables: dict[str, str], part: str
) -> None:
    """Only the folder itself and Flower's own paths depend on it; programs never do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.flower.superlink._secret_folder", lambda _: Path("/secret"))
        for name, value in variables.items():
            patch.setenv(name, value)
        link = SuperLink(Path("/srv") / part, environment={"X": "y"})
    home = os.fspath(Path("/srv") / part)
    assert link._environment == {
        "PATH": "/nonexistent",
        "LANG": "C.UTF-8",
        "X": "y",
        "PYTHONSAFEPATH": "1",
        "HOME": home,
        "TMPDIR": os.path.join(home, "tmp"),  # noqa: PTH118 (as it is written)
        "FLWR_HOME": os.path.join(home, "flwr"),  # noqa: PTH118
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_LOG_LEVEL": "WARNING",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    }
    for words in (link._superlink_command(), link._superexec_command()):
        assert words[1:3] == ["-I", str(LAUNCHER)]
        assert words[4] in PROGRAMS
        assert not [word for word in words if home in word]


def test_the_bundle_is_one_that_flower_would_run(tmp_path: Path) -> None:
    from flwr.cli.config_utils import get_fab_metadata  # noqa: PLC0415 (takes half a second)

    bundle = guard_check.forbidden_bundle(tmp_path / "marker")
    assert get_fab_metadata(bundle) == ("pratique/guard-check", "1.0.0")
