"""Write `locks/`: each package at one version, with the hashes of all builds of that version.

One resolution serves Python 3.11 to 3.13, and is split into the files that `make install` reads.
uv reads metadata only, so torch and its CUDA libraries are not downloaded.
"""

import argparse
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "locks"
SCRATCH = ROOT / "build" / "lock"
BUILD_TOOLS = ("pip", "setuptools", "hatchling", "editables")
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
CUDA = ("nvidia-", "cuda-", "triton")
"""The beginnings of the names of packages that only a build of torch with CUDA needs."""
WITHOUT_CUDA = "+cpu"
HEADS = {
    "build": "What installs and builds: pip and the project's build backend.",
    "run": "What the programs need, without torch.",
    "dev": "What the extras `dev`, `docs` and `bench` need besides.",
    "torch-cpu": "torch without CUDA: the builds that the package index does not have.",
    "torch": "torch as the package index has it.",
    "torch-cuda": "What a build of torch with CUDA needs besides.",
}
_PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[^ ;]+)(?: ; (?P<marker>[^\\]+))?")


@dataclass(frozen=True)
class Pin:
    """One version of a package, the environments that need it, and the hashes of its builds."""

    requirement: str
    hashes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The package's name as indexes write it."""
        return self._part("name")

    @property
    def version(self) -> str:
        """The only version that is installed."""
        return self._part("version")

    @property
    def marker(self) -> str:
        """The environment marker; empty if the package is needed everywhere."""
        return self._part("marker")

    def _part(self, name: str) -> str:
        match = _PIN.fullmatch(self.requirement)
        if match is None:
            raise ValueError(f"not a pin: {self.requirement}")
        return match[name] or ""

    def text(self) -> str:
        """Return the lines of a requirements file."""
        return " \\\n    ".join((self.requirement, *(f"--hash={text}" for text in self.hashes)))


def read(text: str) -> list[Pin]:
    """Return the pins of a requirements file."""
    lines = text.replace("\\\n", " ").splitlines()
    parts = (line.split(" --hash=") for line in lines if line.strip() and line[0] != "#")
    return [Pin(first.strip(), tuple(h.strip() for h in rest)) for first, *rest in parts]


def load(name: str) -> list[Pin]:
    """Return the pins of one file in `locks/`."""
    return read((LOCKS / f"{name}.lock").read_text(encoding="utf-8"))


def split(everything: Sequence[Pin], build: set[str], run: set[str]) -> dict[str, list[Pin]]:
    """Return the pins of each file; `build` and `run` are the requirements of two of them."""
    parts: dict[str, list[Pin]] = {name: [] for name in HEADS}
    for pin in everything:
        parts[_part_of(pin, build, run)].append(pin)
    return parts


def _part_of(pin: Pin, build: set[str], run: set[str]) -> str:
    if pin.name == "torch":
        return "torch"
    if pin.name.startswith(CUDA):
        return "torch-cuda"
    if pin.requirement in build:
        return "build"
    return "run" if pin.requirement in run else "dev"


def without_cuda(pin: Pin, folders: Iterable[Path], earlier: Sequence[Pin]) -> Pin:
    """Return the pin of torch's builds without CUDA: those in these folders and in the lock.

    It is another version, because pip prefers a build whose hash the index names, and would install
    that one.
    """
    version = f"{pin.version}{WITHOUT_CUDA}"
    wheels = (path for folder in folders for path in folder.glob(f"{pin.name}-{version}-*.whl"))
    here = {f"sha256:{_digest(path)}" for path in wheels}
    known = {text for old in earlier if old.version == version for text in old.hashes}
    if not here | known:
        sys.exit(f"No build of {pin.name} {version} is known: make lock WHEELS=folder")
    return Pin(f"{pin.name}=={version}", tuple(sorted(here | known)))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _uv(*words: str) -> str:
    command = [str(Path(sys.executable).parent / "uv"), "pip", "compile", "--quiet"]
    common = ("--no-header", "--no-annotate", "--only-binary", ":all:", "--prerelease", "disallow")
    done = subprocess.run(
        [*command, *common, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def _resolve(*words: str) -> str:
    return _uv(
        "--universal", "--python-version", PYTHONS[0], "--fork-strategy", "fewest", *words
    )  # one version for every Python, so that the tested version is the one that runs


def _requirements(*words: str) -> set[str]:
    return {pin.requirement for pin in read(_resolve(*words))}


def _check_wheels(pins: str, tools: str) -> None:
    """Fail if a version has no wheel for a Python and a machine that are supported."""
    for python in PYTHONS:
        for machine in MACHINES:
            platform = ("--python-platform", f"{machine}-manylinux_2_28")
            _uv("pyproject.toml", tools, "--all-extras", "-c", pins,
                "--python-version", python, *platform)  # fmt: skip


def _write(name: str, pins: Sequence[Pin]) -> None:
    body = "\n".join(pin.text() for pin in pins)
    text = f"# {HEADS[name]}\n# Made with `make lock`.\n{body}\n"
    (LOCKS / f"{name}.lock").write_text(text, encoding="utf-8")


def main() -> None:
    """Write every lock again, with the newest versions that pyproject.toml allows."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folders", nargs="*", type=Path, help="folders with builds of torch")
    folders = parser.parse_args().folders
    SCRATCH.mkdir(parents=True, exist_ok=True)
    tools, pins = SCRATCH / "tools.in", SCRATCH / "everything.txt"
    tools.write_text("\n".join(BUILD_TOOLS), encoding="utf-8")
    pins.write_text(
        _resolve("pyproject.toml", str(tools), "--all-extras", "--generate-hashes"),
        encoding="utf-8",
    )
    _check_wheels(str(pins), str(tools))
    parts = split(
        read(pins.read_text(encoding="utf-8")),
        _requirements(str(tools), "-c", str(pins)),
        _requirements("pyproject.toml", "-c", str(pins)),
    )
    earlier = load("torch-cpu") if (LOCKS / "torch-cpu.lock").exists() else []
    parts["torch-cpu"] = [without_cuda(pin, folders, earlier) for pin in parts["torch"]]
    LOCKS.mkdir(exist_ok=True)
    for name, part in parts.items():
        _write(name, part)


if __name__ == "__main__":
    main()
