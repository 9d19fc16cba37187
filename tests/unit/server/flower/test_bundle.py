"""The bundle of an attempt is configuration that the guard accepts, and can be replaced."""

import tomllib
from pathlib import Path

from server.flower.bundle import build_bundle
from server.flower.bundle_guard import COMPONENTS, CONFIGURATION

RUN = "0123456789abcdef" * 2


def configuration(folder: Path) -> dict[str, object]:
    return tomllib.loads((folder / CONFIGURATION).read_text())["tool"]["flwr"]["app"]  # type: ignore[no-any-return]


def test_a_bundle_names_the_installed_apps_the_run_and_the_attempt(tmp_path: Path) -> None:
    app = configuration(build_bundle(tmp_path / "bundle", RUN, 3))
    assert app["components"] == COMPONENTS
    assert app["config"] == {"run": RUN, "attempt": 3}


def test_a_bundle_is_one_file_that_only_its_owner_may_read(tmp_path: Path) -> None:
    folder = build_bundle(tmp_path / "runs" / "bundle", RUN, 1)
    assert [path.name for path in folder.iterdir()] == [CONFIGURATION]
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_next_attempt_replaces_the_bundle(tmp_path: Path) -> None:
    build_bundle(tmp_path, RUN, 1)
    assert configuration(build_bundle(tmp_path, RUN, 2))["config"] == {"run": RUN, "attempt": 2}
