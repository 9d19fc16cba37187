"""Checks each bundle before `flwr-serverapp` unpacks it: a bundle with code in it is refused.

Flower puts a bundle's folder first on `sys.path`, so a bundle with a file `server/app.py` would
replace the installed one. Our executor starts this module instead of Flower's command. It refuses
a bundle that contains more than its configuration, or that names other apps than ours. This uses
Flower's internals; flwr is pinned to 1.42.
"""

import io
import sys
import tomllib
import zipfile
from typing import Any

from server.errors import CoordinatorFault

COMPONENTS = {"serverapp": "server.app:app", "clientapp": "client.app:app"}
CONFIGURATION = "pyproject.toml"
ALLOWED = frozenset({CONFIGURATION, ".info/CONTENT", ".info/METADATA"})
MAX_BUNDLE = 64 * 2**10
"""The largest bundle, and the largest file in a bundle, in bytes."""
COMPRESSIONS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""The other methods unpack a whole block at a time, even if only a few bytes are read."""
PROJECT_FIELDS = frozenset({"name", "version", "description", "license", "dependencies"})
APP_FIELDS = frozenset({"publisher", "components", "config"})
REFUSED = "The bundle of this run was refused"
"""What Flower shows about the run of a refused bundle."""


class BundleRefused(CoordinatorFault):
    """A bundle that contains more than configuration."""


def check_bundle(content: bytes) -> None:
    """Raise BundleRefused unless `content` is a bundle of configuration for our apps."""
    if len(content) > MAX_BUNDLE:
        raise _refused(f"it is larger than {MAX_BUNDLE} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_files(archive.infolist())
            configuration = tomllib.loads(archive.read(CONFIGURATION).decode())
    except BundleRefused:
        raise
    except Exception as error:  # a bundle is refused for any exception of a parser
        raise _refused(f"it cannot be read: {type(error).__name__}") from error
    _check_app(configuration)


def _check_files(files: list[zipfile.ZipInfo]) -> None:
    names = [file.filename for file in files]
    if extra := sorted(set(names) - ALLOWED):
        raise _refused(f"it contains the file {extra[0]!r}")
    if len(names) != len(set(names)):
        raise _refused("it contains a file twice")
    if any(file.file_size > MAX_BUNDLE or file.compress_type not in COMPRESSIONS for file in files):
        raise _refused("a file in it is too large or compressed in a way that is not allowed")


def _check_app(configuration: dict[str, Any]) -> None:
    app = _table(_table(_table(configuration, "tool"), "flwr"), "app")
    project = _table(configuration, "project")
    if app.get("components") != COMPONENTS:
        raise _refused("it names other apps than the installed ones")
    if project.get("dependencies") or set(project) - PROJECT_FIELDS:
        raise _refused("it asks for packages, or its project table has fields that are not allowed")
    if set(app) - APP_FIELDS:
        raise _refused("its app table has fields that are not allowed")


def _table(parent: dict[str, Any], name: str) -> dict[str, Any]:
    table = parent.get(name)
    if not isinstance(table, dict):
        raise _refused("it names no app")
    return table


def _refused(why: str) -> BundleRefused:
    return BundleRefused(
        REFUSED,
        why=why,
        fix="launch studies with `pratique-coordinator study launch`, which builds a valid bundle",
    )


def main() -> None:
    """Run Flower's ServerApp process, and check the bundle before Flower installs it.

    The app's token comes from standard input.
    """
    from flwr.superlink.cli import flwr_serverapp  # noqa: PLC0415 (checking alone needs no Flower)

    runtime: Any = sys.modules["flwr.superlink.runtime.run_serverapp"]
    install = runtime.install_from_fab

    def guarded(fab_file: bytes, *arguments: Any, **options: Any) -> Any:
        check_bundle(fab_file)
        return install(fab_file, *arguments, **options)

    runtime.install_from_fab = guarded
    sys.argv += ["--token", sys.stdin.read()]
    flwr_serverapp()
