"""The check of the installed versions: Python, SQLite and each pinned library."""

import sqlite3

import pytest

from client.commands import installation
from client.commands.installation import check_installation
from keys.errors import PratiqueError


def test_the_installed_versions_are_named() -> None:
    assert "Flower 1." in check_installation()


def test_a_library_of_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(installation.WANTED, "flwr", "9.99.")
    with pytest.raises(PratiqueError, match=r"version 1\..* of flwr is installed, and 9\.99\.x"):
        check_installation()


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(installation.WANTED, "no-such-library", "1.")
    with pytest.raises(PratiqueError, match="no-such-library is not installed"):
        check_installation()


def test_an_old_sqlite_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    with pytest.raises(PratiqueError, match="is too old"):
        check_installation()
