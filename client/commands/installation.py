"""Checks the versions of Python, SQLite and the pinned libraries for `pratique-node doctor`."""

import sqlite3
import sys
from importlib.metadata import PackageNotFoundError, version

from keys.errors import PratiqueError

WANTED = {"flwr": "1.42.", "tuf": "7.0.", "cedarpy": "4.12."}
"""Libraries pinned by minor version, because their behaviour was established by running them."""
OLDEST_PYTHON, OLDEST_SQLITE = (3, 11), (3, 37)


def check_installation() -> str:
    """Return a sentence on the installed versions. Raises PratiqueError if one is wrong."""
    if sys.version_info < OLDEST_PYTHON or sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise PratiqueError(
            f"Python {sys.version.split()[0]} with SQLite {sqlite3.sqlite_version} is too old",
            fix="install Pratique with Python 3.11 or later",
        )
    for package, wanted in WANTED.items():
        _require_version(package, wanted)
    return f"Pratique {_version('pratique')}, Flower {_version('flwr')}"


def _require_version(package: str, wanted: str) -> None:
    installed = _version(package)
    if not installed.startswith(wanted):
        raise PratiqueError(
            f"The version {installed} of {package} is installed, and {wanted}x is needed"
            if installed
            else f"The package {package} is not installed, and {wanted}x is needed",
            fix="install Pratique again from its lock files",
        )


def _version(package: str) -> str:
    """Return the installed version of a package; an empty text if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
