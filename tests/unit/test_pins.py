"""The lock files: each package in one version with hashes, complete without torch's CUDA build."""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, distributions
from itertools import chain, product
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.lock import (
    BUILD_TOOLS,
    CUDA,
    HEADS,
    LOCKS,
    MACHINES,
    PYTHONS,
    ROOT,
    Pin,
    load,
    read,
    split,
    without_cuda,
)

HASH = re.compile(r"sha256:[0-9a-f]{64}")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
INSTALLED = ("build", "run", "dev", "torch")
"""The lock files that every installation uses."""
NEEDED = [*PROJECT["dependencies"], *chain.from_iterable(EXTRAS.values())]

every_lock = pytest.mark.parametrize("name", HEADS)


def installed_pins() -> list[Pin]:
    return [pin for name in INSTALLED for pin in load(name)]


def versions(pins: list[Pin]) -> dict[str, str]:
    return {pin.name: pin.version for pin in pins}


def public(version: str) -> str:
    """Remove a local label, such as the `+cpu` of a build without CUDA."""
    return version.partition("+")[0]


def environment(python: str, machine: str) -> dict[str, str]:
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }


def requirements_of(name: str) -> list[str]:
    try:
        return distribution(name).requires or []
    except PackageNotFoundError:
        return []


def applicable(lines: list[str], where: dict[str, str], extras: set[str]) -> Iterator[Requirement]:
    """Yield the requirements of these lines on a machine such as `where`."""
    for line in lines:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({**where, "extra": e}) for e in {"", *extras}):
            yield requirement


def everything_needed(where: dict[str, str]) -> Iterator[Requirement]:
    """Yield the requirements of project, extras and build, with all their dependencies."""
    waiting, wanted_names = list(applicable([*NEEDED, *BUILD_TOOLS], where, set())), set[str]()
    while waiting:
        requirement = waiting.pop()
        yield requirement
        if (
            key := f"{canonicalize_name(requirement.name)} {sorted(requirement.extras)}"
        ) not in wanted_names:
            wanted_names.add(key)
            waiting += applicable(requirements_of(requirement.name), where, requirement.extras)


def test_there_is_no_other_lock_file() -> None:
    assert {path.stem for path in LOCKS.iterdir()} == set(HEADS)


@every_lock
def test_every_requirement_is_pinned_and_has_hashes(name: str) -> None:
    for pin in load(name):
        assert pin.name
        assert pin.version
        assert pin.hashes, f"{pin.name} has no hash"
        assert all(HASH.fullmatch(digest) for digest in pin.hashes), pin.name


def test_each_package_has_one_version_in_one_file() -> None:
    names = [pin.name for name in HEADS if name != "torch-cpu" for pin in load(name)]
    assert len(names) == len(set(names))


def test_the_torch_files_have_torch_only_and_one_version() -> None:
    (indexed,), (small,) = load("torch"), load("torch-cpu")
    assert indexed.name == small.name == "torch"
    assert small.version == f"{indexed.version}+cpu"
    assert set(small.hashes).isdisjoint(indexed.hashes)


def test_cuda_libraries_are_in_a_file_that_only_a_build_with_cuda_reads() -> None:
    assert all(pin.name.startswith(CUDA) for pin in load("torch-cuda"))
    assert not [pin.name for pin in installed_pins() if pin.name.startswith(CUDA)]


def test_no_large_unused_package_is_installed() -> None:
    assert not {"jax", "tensorflow", "torchvision"} & set(versions(installed_pins()))


def test_build_tools_come_first() -> None:
    assert set(BUILD_TOOLS) <= set(versions(load("build")))


def test_developer_tools_are_not_installed_for_a_node() -> None:
    extras = {canonicalize_name(Requirement(line).name) for line in chain(*EXTRAS.values())}
    run = set(versions(load("run")))
    assert {"pytest", "mypy", "mkdocs", "pre-commit", "coverage"}.isdisjoint(run)
    assert extras - set(versions(load("dev"))) <= {"hatchling"}, "hatchling is a build tool"


@pytest.mark.parametrize(("python", "machine"), list(product(PYTHONS, MACHINES)))
def test_the_locks_hold_every_dependency_of_every_dependency(python: str, machine: str) -> None:
    """Otherwise `--no-deps` would leave something out."""
    where = environment(python, machine)
    applies = [pin for pin in installed_pins() if list(applicable([pin.requirement], where, set()))]
    pinned = versions(applies)
    needed = list(everything_needed(where))
    assert len({canonicalize_name(requirement.name) for requirement in needed}) > len(NEEDED)
    for requirement in needed:
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is in no lock"
        assert requirement.specifier.contains(version, prereleases=True), (
            f"{requirement} and {version}"
        )


def test_the_installed_packages_are_the_pinned_ones() -> None:
    here: dict[str, str] = {
        canonicalize_name(distribution.metadata["Name"]): distribution.version
        for distribution in distributions()
    }
    differing = {
        name: (version, here.get(name))
        for name, version in versions(installed_pins()).items()
        if public(here.get(name, "")) != version
    }
    assert not differing


PINS = read(
    "# a comment\n\n"
    "pip==26.3 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
    "torch==2.13.0 \\\n    --hash=sha256:cc\n"
    "triton==3.7.1 ; sys_platform == 'linux' \\\n    --hash=sha256:dd\n"
    "httpx==0.28.1 \\\n    --hash=sha256:ee\n"
    "mypy==2.4.1 \\\n    --hash=sha256:ff\n"
)


def test_a_lock_is_read_as_it_is_written() -> None:
    assert [pin.name for pin in PINS] == ["pip", "torch", "triton", "httpx", "mypy"]
    assert PINS[0].hashes == ("sha256:aa", "sha256:bb")
    assert (PINS[2].version, PINS[2].marker) == ("3.7.1", "sys_platform == 'linux'")
    assert read("\n".join(pin.text() for pin in PINS)) == PINS


def test_each_pin_is_in_the_file_of_the_installations_that_need_it() -> None:
    parts = split(PINS, {"pip==26.3"}, {"pip==26.3", "httpx==0.28.1"})
    assert {name: [pin.name for pin in part] for name, part in parts.items()} == {
        "build": ["pip"],
        "run": ["httpx"],
        "dev": ["mypy"],
        "torch-cpu": [],
        "torch": ["torch"],
        "torch-cuda": ["triton"],
    }


@pytest.mark.parametrize("line", ["httpx", "httpx>=0.28", "httpx==0.28.1, <1"])
def test_unpinned_lines_are_refused(line: str) -> None:
    (pin,) = read(line)
    with pytest.raises(ValueError, match="not a pin"):
        _ = pin.name


def build_of_torch(folder: Path, version: str, python: str) -> Path:
    path = folder / f"torch-{version}-{python}-{python}-linux_x86_64.whl"
    path.write_text(f"{version} for {python}")
    return path


def test_torch_builds_without_cuda_are_the_local_and_the_known_ones(tmp_path: Path) -> None:
    build_of_torch(tmp_path, "2.13.0+cpu", "cp311")
    pin = without_cuda(PINS[1], [tmp_path, tmp_path / "missing"], [])
    build_of_torch(tmp_path, "2.13.0+cpu", "cp312")
    for version in ("2.13.0", "2.13.0+cu130", "2.14.0+cpu"):
        build_of_torch(tmp_path, version, "cp311")
    both = without_cuda(PINS[1], [tmp_path], [])
    assert pin.requirement == both.requirement == "torch==2.13.0+cpu"
    assert len(pin.hashes) == 1
    assert len(both.hashes) == 2
    assert without_cuda(PINS[1], [], [both]) == without_cuda(PINS[1], [tmp_path], [pin]) == both


def test_another_version_has_no_known_build_without_cuda(tmp_path: Path) -> None:
    old = Pin("torch==2.12.0+cpu", ("sha256:aa",))
    with pytest.raises(SystemExit, match="make lock WHEELS"):
        without_cuda(PINS[1], [tmp_path], [old])
