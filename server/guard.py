"""Stands before `flwr-serverapp`: no bundle with code in it is ever unpacked or imported.

Flower puts a bundle's folder first on `sys.path`, so a bundle that carries `server/app.py` would
shadow the installed one. The executor starts this module instead of Flower's command; it looks
into the bundle first and refuses one that holds more than its configuration, or that names
another app than ours. Works on Flower's internals; flwr is pinned to 1.41.
"""

import io
import sys
import tomllib
import zipfile
from typing import Any

from server.errors import OperationFault

COMPONENTS = {"serverapp": "server.app:app", "clientapp": "client.app:app"}
CONFIGURATION = "pyproject.toml"
ALLOWED = frozenset({CONFIGURATION, ".info/CONTENT", ".info/METADATA"})
MAX_BUNDLE = 64 * 2**10


class BundleRefused(OperationFault):
    """A bundle that is more than configuration."""


def check_bundle(content: bytes) -> None:
    """Raise BundleRefused unless `content` is a bundle of configuration for our own apps."""
    if len(content) > MAX_BUNDLE:
        raise _refused(f"it is larger than {MAX_BUNDLE} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = set(archive.namelist())
            if extra := sorted(names - ALLOWED):
                raise _refused(f"it holds {extra[0]!r}")
            described = tomllib.loads(archive.read(CONFIGURATION)[:MAX_BUNDLE].decode())
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _refused(f"it cannot be read: {type(error).__name__}") from error
    _check_components(described)


def _check_components(described: dict[str, Any]) -> None:
    try:
        components = described["tool"]["flwr"]["app"]["components"]
    except (KeyError, TypeError) as error:
        raise _refused("it names no app") from error
    if components != COMPONENTS:
        raise _refused("it names another app than the installed one")
    if described.get("project", {}).get("dependencies"):
        raise _refused("it asks for packages to be installed")


def _refused(why: str) -> BundleRefused:
    return BundleRefused(
        "The bundle of this run was refused",
        why=why,
        fix="launch studies with `pratique-coordinator study launch`, which builds the only bundle",
    )


def main() -> None:
    """Run Flower's ServerApp process with the guard before its bundle installation."""
    from flwr.superlink.cli import flwr_serverapp  # noqa: PLC0415 (checking alone needs no Flower)

    runtime: Any = sys.modules["flwr.superlink.runtime.run_serverapp"]
    install = runtime.install_from_fab

    def guarded(fab_file: bytes, *arguments: Any, **options: Any) -> Any:
        check_bundle(fab_file)
        return install(fab_file, *arguments, **options)

    runtime.install_from_fab = guarded
    flwr_serverapp()


if __name__ == "__main__":
    main()
