"""Only a bundle of configuration is accepted, and refusing a hostile one costs little."""

import hashlib
import io
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import flwr.superlink.cli
import pytest
from flwr.cli.build import build_fab_from_disk, build_fab_from_files
from hypothesis import given
from hypothesis import strategies as st

from server.flower import bundle_guard
from server.flower.bundle import TEMPLATE, build_bundle
from server.flower.bundle_guard import (
    CONFIGURATION,
    MAX_BUNDLE,
    BundleRefused,
    check_bundle,
)

RUN = "0123456789abcdef" * 2
TOKEN = "5" * 64
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern")  # flwr packs so
HONEST = TEMPLATE.format(run=RUN, attempt=1, serverapp="server.app:app", clientapp="client.app:app")


def packed(*files: tuple[str, str | bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return buffer.getvalue()


def described(text: str) -> bytes:
    return packed((CONFIGURATION, text), (".info/CONTENT", "x"))


def refused(content: bytes) -> str:
    with pytest.raises(BundleRefused) as caught:
        check_bundle(content)
    fault = caught.value
    assert fault.what == "The bundle of this run was refused"
    assert "study launch" in fault.fix
    return fault.why


def test_the_bundle_that_launch_builds_passes_as_flower_packs_it(tmp_path: Path) -> None:
    folder = build_bundle(tmp_path / "bundle", RUN, 1)
    assert [file.name for file in folder.iterdir()] == [CONFIGURATION]
    check_bundle(build_fab_from_disk(folder))


def test_bundles_of_launch_differ_in_their_run_only(tmp_path: Path) -> None:
    one = (build_bundle(tmp_path / "a", RUN, 1) / CONFIGURATION).read_text()
    other = (build_bundle(tmp_path / "b", "f" * 32, 1) / CONFIGURATION).read_text()
    assert one.replace(RUN, "f" * 32) == other


@pytest.mark.parametrize(
    "name",
    [
        "server/app.py",
        "server/__init__.py",
        "server.py",
        "client/app.py",
        "sitecustomize.py",
        "numpy.so",
        "x.pth",
        "../../server/app.py",
        "/etc/cron.d/x",
        "..\\server\\app.py",
        "pyproject.toml/../server/app.py",
        "./pyproject.toml",
        "PYPROJECT.TOML",
        "pyproject.toml ",
        ".info/",
        ".info/../server/app.py",
        "server/",
    ],
)
def test_a_bundle_that_holds_anything_else_is_refused(name: str) -> None:
    content = packed((CONFIGURATION, HONEST), (".info/CONTENT", "x"), (name, "print('owned')"))
    assert f"it contains the file {name!r}" in refused(content)


def test_code_packed_by_flower_itself_is_refused() -> None:
    files = {CONFIGURATION: HONEST.encode(), "server/app.py": b"app = 1", "server/__init__.py": b""}
    assert "server/" in refused(build_fab_from_files(files)[0])


def test_a_link_in_place_of_the_configuration_is_not_followed() -> None:
    link = zipfile.ZipInfo(CONFIGURATION)
    link.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    refused(buffer.getvalue())


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("hidden", [HONEST, HONEST.replace("server.app:app", "os:abort")])
def test_a_bundle_that_holds_a_file_twice_is_refused(hidden: str) -> None:
    content = packed((CONFIGURATION, hidden), (CONFIGURATION, HONEST))
    assert "twice" in refused(content)


def changed(old: str, new: str) -> str:
    assert old in HONEST
    return HONEST.replace(old, new)


@pytest.mark.parametrize(
    "text",
    [
        changed("server.app:app", "os:system"),
        changed("server.app:app", "server.app:main"),
        changed("client.app:app", "antigravity:app"),
        changed('clientapp = "client.app:app"', 'clientapp = "client.app:app"\nagentapp = "os:x"'),
        changed('serverapp = "server.app:app"\n', ""),
        changed('clientapp = "client.app:app"', 'clientapp = ["client.app:app"]'),
    ],
)
def test_a_bundle_that_names_another_component_is_refused(text: str) -> None:
    assert "other apps" in refused(described(text))


@pytest.mark.parametrize(
    "text",
    [
        changed("dependencies = []", 'dependencies = ["evil @ file:///tmp/evil"]'),
        changed("dependencies = []", 'dynamic = ["dependencies"]'),
        changed("dependencies = []", 'optional-dependencies = {x = ["evil"]}'),
        changed("dependencies = []", 'scripts = {flwr = "os:abort"}'),
        changed("dependencies = []", 'entry-points = {"flwr" = {x = "os:abort"}}'),
        changed('publisher = "pratique"', 'publisher = "p"\nfab-include = ["**/*.py"]'),
        changed('publisher = "pratique"', 'publisher = "p"\nhub = true'),
    ],
)
def test_a_bundle_with_further_fields_is_refused(text: str) -> None:
    assert "not allowed" in refused(described(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tool = 1",
        "project = []",
        "[tool]\nflwr = 'x'",
        "[tool.flwr]\napp = []",
        "[tool.flwr.app]\ncomponents = {}",
        "[[tool.flwr.app]]\n[project]\n",
        "project = 'x'\n" + HONEST.split("\n\n", 1)[1],
        "not toml",
        "a = " + "[" * 20_000,
        "\ufeff" + HONEST,
    ],
)
def test_a_configuration_of_another_shape_is_refused(text: str) -> None:
    refused(described(text))


def test_a_configuration_that_is_not_text_is_refused() -> None:
    assert "cannot be read" in refused(packed((CONFIGURATION, b"\xff\xfe\x00")))


def test_a_bundle_without_a_configuration_is_refused() -> None:
    assert "cannot be read" in refused(packed((".info/CONTENT", "x")))


def test_a_bundle_that_is_too_large_is_not_even_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZipFile", _never)
    assert "larger than" in refused(b"PK" + bytes(MAX_BUNDLE))


def _never(*_: object, **__: object) -> None:
    raise AssertionError("it was opened")


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("name", [CONFIGURATION, ".info/CONTENT"])
def test_a_bomb_is_not_unpacked(packing: int, name: str) -> None:
    bomb = packed((name, b"#" * (8 * 2**20)), packing=packing)
    assert len(bomb) < MAX_BUNDLE
    tracemalloc.start()
    try:
        assert "too large or compressed" in refused(bomb)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_that_cannot_be_bounded_is_refused(packing: int) -> None:
    assert "too large or compressed" in refused(packed((CONFIGURATION, HONEST), packing=packing))


def test_a_file_with_a_false_size_is_refused() -> None:
    honest = packed((CONFIGURATION, "#" * 3000 + "\n" + HONEST))
    size = (3001 + len(HONEST)).to_bytes(4, "little")
    assert honest.count(size) == 2
    refused(honest.replace(size, (40).to_bytes(4, "little")))


def test_an_encrypted_file_is_refused() -> None:
    content = bytearray(packed((CONFIGURATION, HONEST)))
    for header in (b"PK\x03\x04", b"PK\x01\x02"):
        flags = content.index(header) + (6 if header.endswith(b"\x04") else 8)
        content[flags] |= 1
    assert "cannot be read" in refused(bytes(content))


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused(content: bytes) -> None:
    refused(content)


@given(st.data())
def test_a_damaged_bundle_is_refused_or_still_configuration(data: st.DataObject) -> None:
    content = bytearray(described(HONEST))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    try:
        check_bundle(bytes(content))
    except BundleRefused:
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert set(archive.namelist()) <= bundle_guard.ALLOWED


class FakeFlower:
    """Flower's process as far as the guard knows it: it installs a bundle, then runs it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.installed: list[bytes] = []
        self.runtime = ModuleType("runtime")
        self.runtime.install_from_fab = self._install  # type: ignore[attr-defined]
        name = "flwr.superlink.runtime.run_serverapp"
        monkeypatch.setitem(sys.modules, name, self.runtime)
        monkeypatch.setattr(flwr.superlink.cli, "flwr_serverapp", self.run)
        monkeypatch.setattr(sys, "argv", ["flwr-serverapp"])
        monkeypatch.setattr(sys, "stdin", io.StringIO(TOKEN))
        self.bundle = b""

    def _install(self, fab_file: bytes, *_: Any, **__: Any) -> str:
        self.installed.append(fab_file)
        return "here"

    def run(self) -> None:
        assert sys.argv == ["flwr-serverapp", "--token", TOKEN]
        install: Callable[..., str] = self.runtime.install_from_fab
        assert install(self.bundle, skip_prompt=True) == "here"


def test_the_guard_runs_before_the_installation_by_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    flower = FakeFlower(monkeypatch)
    flower.bundle = described(HONEST)
    bundle_guard.main()
    assert flower.installed == [flower.bundle]


def test_a_refused_bundle_is_never_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    flower = FakeFlower(monkeypatch)
    flower.bundle = packed((CONFIGURATION, HONEST), ("server/app.py", "x"))
    with pytest.raises(BundleRefused):
        bundle_guard.main()
    assert not flower.installed


def test_flower_installs_by_the_name_that_the_guard_replaces() -> None:
    import flwr.superlink.runtime.run_serverapp as _  # noqa: PLC0415, F401 (its name is shadowed)

    runtime = sys.modules["flwr.superlink.runtime.run_serverapp"]
    source = Path(str(runtime.__file__)).read_text()
    assert source.count("install_from_fab(") == 1
    assert callable(runtime.install_from_fab)
    assert "install_from_fab(fab.content" in source


def test_the_same_bundle_has_the_same_hash(tmp_path: Path) -> None:
    folder = build_bundle(tmp_path / "bundle", RUN, 1)
    hashes = {hashlib.sha256(build_fab_from_disk(folder)).hexdigest() for _ in range(2)}
    assert len(hashes) == 1
