"""Stands before `flwr-serverapp`: no bundle with code in it is ever unpacked or imported.

Flower puts a bundle's folder first on `sys.path`, so a bundle that carries `server/app.py` would
shadow the installed one. The executor starts this module instead of Flower's command; it looks
into the bundle first and refuses one that holds more than its configuration, or that names
another app than ours. Works on Flower's internals; flwr is pinned to 1.42.
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
"""Largest bundle, and largest file in one, in bytes."""
PACKINGS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""The others unpack a whole block at a time, however little is asked for."""
PROJECT_FIELDS = frozenset({"name", "version", "description", "license", "dependencies"})
APP_FIELDS = frozenset({"publisher", "components", "config"})


class BundleRefused(OperationFault):
    """A bundle that is more than configuration."""


def check_bundle(content: bytes) -> None:
    """Raise BundleRefused unless `content` is a bundle of configuration for our own apps."""
    if len(content) > MAX_BUNDLE:
        raise _refused(f"it is larger than {MAX_BUNDLE} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_files(archive.infolist())
            described = tomllib.loads(archive.read(CONFIGURATION).decode())
    except BundleRefused:
        raise
    except Exception as error:  # whatever an archive or a text can do to its parser: refused
        raise _refused(f"it cannot be read: {type(error).__name__}") from error
    _check_app(described)


def _check_files(files: list[zipfile.ZipInfo]) -> None:
    names = [file.filename for file in files]
    if extra := sorted(set(names) - ALLOWED):
        raise _refused(f"it holds {extra[0]!r}")
    if len(names) != len(set(names)):
        raise _refused("it holds a file twice")
    if any(f.file_size > MAX_BUNDLE or f.compress_type not in PACKINGS for f in files):
        raise _refused("a file in it unpacks to more than a configuration")


def _check_app(described: dict[str, Any]) -> None:
    app = _table(_table(_table(described, "tool"), "flwr"), "app")
    project = _table(described, "project")
    if app.get("components") != COMPONENTS:
        raise _refused("it names another app than the installed one")
    if project.get("dependencies") or set(project) - PROJECT_FIELDS:
        raise _refused("it asks for packages to be installed, or says more than it may")
    if set(app) - APP_FIELDS:
        raise _refused("it says more than it may of its app")


def _table(parent: dict[str, Any], name: str) -> dict[str, Any]:
    found = parent.get(name)
    if not isinstance(found, dict):
        raise _refused("it names no app")
    return found


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
