"""Pack and unpack the homes that a version wrote, with a manifest of their contents."""

import io
import json
import lzma
import sqlite3
import tarfile
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from client.node import Node
from tests.support.homes import COORDINATOR, NODE, PARTIES, Homes

FOLDER = Path(__file__).parents[1] / "fixtures"
LATER = timedelta(minutes=10)
"""The homes are opened this long after they were written."""
NOT_KEPT = ("lock", "daemon.lock", "*.lock", "*.db-wal", "*.db-shm")


def read_manifest(version: str) -> dict[str, Any]:
    """Return the manifest: what a version's homes contained when they were written."""
    manifest: dict[str, Any] = json.loads((FOLDER / f"home-{version}.json").read_text())
    return manifest


def unpack(version: str, folder: Path) -> Homes:
    """Unpack a version's homes into a folder, which must be the working directory."""
    with tarfile.open(FOLDER / f"home-{version}.tar.xz") as archive:
        archive.extractall(folder, filter="tar")
    manifest = read_manifest(version)
    now = datetime.fromisoformat(manifest["now"]) + LATER
    return Homes(folder, now, manifest["passphrases"])


def write(version: str, archive: bytes, manifest: dict[str, Any]) -> None:
    """Write a version's archive and manifest."""
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)
    (FOLDER / f"home-{version}.tar.xz").write_bytes(archive)
    (FOLDER / f"home-{version}.json").write_text(f"{text}\n")


def pack(folder: Path) -> bytes:
    """Return the homes as a tar archive; the same files give the same bytes."""
    unzipped = io.BytesIO()
    with tarfile.open(fileobj=unzipped, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            if not any(path.match(name) for name in NOT_KEPT):
                _add(archive, path, folder)
    return lzma.compress(unzipped.getvalue(), preset=9)


def _add(archive: tarfile.TarFile, path: Path, folder: Path) -> None:
    about = tarfile.TarInfo(str(path.relative_to(folder)))
    if path.is_dir():
        about.type, about.mode = tarfile.DIRTYPE, 0o700
        archive.addfile(about)
        return
    content = path.read_bytes()
    assert bytes(folder) not in content, f"{path} contains its folder's path: it cannot be moved"
    about.size, about.mode = len(content), 0o600
    archive.addfile(about, io.BytesIO(content))


def describe(homes: Homes) -> dict[str, Any]:
    """Return what the homes contain, read from their files alone."""
    databases = {COORDINATOR: homes.coordinator_home().database}
    databases |= {f"{country}/{NODE}": homes.node_home(country).database for country in PARTIES}
    return {
        "now": homes.now.isoformat(),
        "passphrases": dict(homes.passphrases),
        "settings": {
            str(file.relative_to(homes.folder)): yaml.safe_load(file.read_text())
            for file in sorted(homes.folder.rglob("*.yaml"))
            if file.name != "dictionary.yaml"
        },
        "secrets": {
            home: sorted(file.stem for file in (homes.folder / home / "keys").glob("*.sealed"))
            for home in homes.passphrases
        },
        "databases": {home: _tables(file) for home, file in databases.items()},
    }


def _tables(file: Path) -> dict[str, Any]:
    """Return a database's schema version, row counts, checkpoint, ledger and named values."""
    with closing(sqlite3.connect(file)) as raw:
        names = [n for (n,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        count = {n: raw.execute(f"SELECT count(*) FROM {n}").fetchone()[0] for n in sorted(names)}  # noqa: S608
        contents: dict[str, Any] = {
            "schema": raw.execute("SELECT version_num FROM alembic_version").fetchone()[0],
            "rows": count,
            "checkpoint": raw.execute("SELECT note FROM log_heads ORDER BY size DESC LIMIT 1")
            .fetchone()[0]
            .decode(),
        }
        raw.row_factory = sqlite3.Row
        for table in ("ledger_entries", "settings"):
            if table in names:
                rows = raw.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()  # noqa: S608
                contents[table] = [dict(row) for row in rows]
    return contents


def rows_when_written(manifest: Any, country: str, table: str) -> list[dict[str, Any]]:
    """Return the rows that a node's table had when the homes were written."""
    rows: list[dict[str, Any]] = manifest["databases"][f"{country}/{NODE}"][table]
    return rows


def parse_moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def assert_charged(node: Node, written: list[dict[str, Any]]) -> None:
    """Raise AssertionError unless a node's ledger contains these rows, and no others."""
    entries = node.parts.ledger.entries()
    assert len(entries) == len(written)
    for entry, row in zip(entries, written, strict=True):
        mechanism = json.loads(row["mechanism"])
        assert mechanism.items() <= entry.mechanism.model_dump(mode="json").items()
        for name in row.keys() - {"mechanism", "created"}:
            assert getattr(entry, name) == row[name]
        assert entry.created == parse_moment(row["created"])
