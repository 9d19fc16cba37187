"""The wheel holds the five packages completely, and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {"server", "client", "governance", "protocols", "keys"}
DATA_SUFFIXES = {".cedar", ".cedarschema", ".proto", ".pyi", ".mako", ".typed"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel by the backend itself, without a network or a build environment."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def top_level_names(wheel: zipfile.ZipFile) -> set[str]:
    return {name.split("/", 1)[0] for name in wheel.namelist()}


def metadata(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = [path for path in wheel.namelist() if path.endswith(f".dist-info/{name}")]
    return wheel.read(path).decode()


def test_it_holds_exactly_the_five_packages(wheel: zipfile.ZipFile) -> None:
    assert {top for top in top_level_names(wheel) if not top.endswith(".dist-info")} == ROOMS


def test_it_holds_every_source_file(wheel: zipfile.ZipFile) -> None:
    listed = subprocess.run(
        ["git", "ls-files", *ROOMS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout: which files are source is unknown")
    present = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    assert present <= set(wheel.namelist())


def test_every_package_is_marked_as_typed(wheel: zipfile.ZipFile) -> None:
    assert {f"{room}/py.typed" for room in ROOMS} <= set(wheel.namelist())


def test_it_holds_no_tests_no_demo_and_no_compiled_file(wheel: zipfile.ZipFile) -> None:
    inside = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert {Path(name).suffix for name in inside} <= {".py", *DATA_SUFFIXES}
    assert not [name for name in inside if Path(name).name.startswith("test_")]


def test_it_installs_exactly_three_programs(wheel: zipfile.ZipFile) -> None:
    scripts = [line for line in metadata(wheel, "entry_points.txt").splitlines() if "=" in line]
    assert {line.split("=")[0].strip() for line in scripts} == {
        "pratique-node",
        "pratique-coordinator",
        "pratique-officer",
    }


def test_it_names_its_licence(wheel: zipfile.ZipFile) -> None:
    assert "License-Expression: Apache-2.0" in metadata(wheel, "METADATA")
    (licence,) = [name for name in wheel.namelist() if name.endswith("/licenses/LICENSE")]
    assert "Apache License" in wheel.read(licence).decode()


def test_it_does_not_require_developer_packages(wheel: zipfile.ZipFile) -> None:
    needed = [
        line for line in metadata(wheel, "METADATA").splitlines() if line.startswith("Requires-")
    ]
    plain = [line for line in needed if "extra ==" not in line]
    assert not [line for line in plain if "pytest" in line or "mypy" in line]
