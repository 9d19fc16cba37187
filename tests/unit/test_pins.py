"""The constraints file pins every package of the environment, and nothing loosely."""

import re
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"([a-z0-9-]+)==([A-Za-z0-9.+!]+)")


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [PIN.fullmatch(line) for line in lines if line and not line.startswith("#")]
    assert all(found), "every line is name==version"
    return {match[1]: match[2] for match in found if match}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def public(version: str) -> str:
    """Leave out a local label, such as the `+cpu` of a build without a graphics processor."""
    return version.partition("+")[0]


def test_each_package_is_pinned_once() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = [line.split("==")[0] for line in lines if "==" in line]
    assert len(names) == len(set(names)) == len(pins())


def test_what_builds_and_installs_is_pinned() -> None:
    assert {"pip", "setuptools", "hatchling", "editables"} <= set(pins())


def test_nothing_unused_and_huge_is_pulled_in() -> None:
    assert not {"jax", "tensorflow", "torchvision", "triton"} & set(pins())
    assert not [name for name in pins() if name.startswith(("nvidia", "cuda"))]


def test_what_runs_here_is_what_is_pinned() -> None:
    pinned = pins()
    here = {canonical(one.metadata["Name"]): one.version for one in distributions()}
    differing = {
        name: (version, here[name])
        for name, version in pinned.items()
        if name in here and public(here[name]) != version and name not in {"pip", "setuptools"}
    }
    assert not differing
