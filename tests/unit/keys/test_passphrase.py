import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from keys import passphrase
from keys.errors import KeyFault
from keys.passphrase import PASSPHRASE_LIMIT_BYTES, read_passphrase

LONGEST = b"x" * PASSPHRASE_LIMIT_BYTES


def private_file(tmp_path: Path, content: bytes) -> Path:
    file = tmp_path / "passphrase"
    file.write_bytes(content)
    file.chmod(0o600)
    return file


def from_file(file: Path) -> bytes:
    return read_passphrase(file=file, fd=None, prompt=None, purpose="the key store")


@contextmanager
def pipe_with(content: bytes) -> Iterator[int]:
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    yield reader
    os.close(reader)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"four random words here", b"four random words here"),
        (b"words\n", b"words"),
        (b"words\r\n", b"words"),
        (b"words\n\n", b"words\n"),
        (b"words\r", b"words\r"),
        (b" words \n", b" words "),
        ("mot de passe à part\n".encode(), "mot de passe à part".encode()),
        (b"\xff\x00\xfe\n", b"\xff\x00\xfe"),
        (LONGEST, LONGEST),
        (LONGEST + b"\r\n", LONGEST),
    ],
)
def test_one_trailing_newline_is_not_part_of_the_passphrase(
    tmp_path: Path, content: bytes, expected: bytes
) -> None:
    assert from_file(private_file(tmp_path, content)) == expected
    with pipe_with(content) as fd:
        assert read_passphrase(file=None, fd=fd, prompt=None, purpose="the key store") == expected


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n"])
def test_an_empty_passphrase_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(KeyFault, match="empty"):
        from_file(private_file(tmp_path, content))
    with pipe_with(content) as fd, pytest.raises(KeyFault, match="empty"):
        read_passphrase(file=None, fd=fd, prompt=None, purpose="the key store")
    with pytest.raises(KeyFault, match="empty"):
        read_passphrase(file=None, fd=None, prompt=lambda _: "", purpose="the key store")


@pytest.mark.parametrize("content", [LONGEST + b"x", LONGEST + b"\n\n\n", LONGEST * 1000])
def test_a_too_long_passphrase_is_refused_and_not_cut(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(KeyFault, match="longer than 1024"):
        from_file(private_file(tmp_path, content))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = private_file(tmp_path, b"words")
    file.chmod(mode)
    with pytest.raises(KeyFault) as caught:
        from_file(file)
    assert caught.value.fix == f"chmod 0600 {file}"


def test_a_link_is_judged_by_its_target_file(tmp_path: Path) -> None:
    file = private_file(tmp_path, b"words")
    link = tmp_path / "link"
    link.symlink_to(file)
    assert from_file(link) == b"words"
    file.chmod(0o644)
    with pytest.raises(KeyFault, match="open to other users"):
        from_file(link)


def test_a_missing_file_or_a_directory_gives_a_clear_error(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(KeyFault, match="The passphrase for the key store"):
            from_file(path)


def test_a_closed_descriptor_gives_a_clear_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    with pytest.raises(KeyFault, match="cannot be used"):
        read_passphrase(file=None, fd=reader, prompt=None, purpose="the key store")


def test_the_prompt_names_the_purpose() -> None:
    requested: list[str] = []

    def prompt(question: str) -> str:
        requested.append(question)
        return "words à part"

    given = read_passphrase(file=None, fd=None, prompt=prompt, purpose="the key store")
    assert given == "words à part".encode()
    assert requested == ["Passphrase for the key store: "]


def test_there_is_no_prompt_if_a_file_or_descriptor_is_named(tmp_path: Path) -> None:
    def prompt(question: str) -> str:
        raise AssertionError(question)

    file = private_file(tmp_path, b"words")
    assert read_passphrase(file=file, fd=None, prompt=prompt, purpose="x") == b"words"
    with pipe_with(b"words") as fd:
        assert read_passphrase(file=None, fd=fd, prompt=prompt, purpose="x") == b"words"


def test_an_interrupted_prompt_gives_a_clear_error() -> None:
    def prompt(question: str) -> str:
        raise EOFError

    with pytest.raises(KeyFault, match="cannot be used"):
        read_passphrase(file=None, fd=None, prompt=prompt, purpose="the key store")


def test_the_prompt_returns_bytes_that_are_not_text_as_they_were_typed() -> None:
    typed = b"caf\xe9".decode(errors="surrogateescape")
    assert read_passphrase(file=None, fd=None, prompt=lambda _: typed, purpose="x") == b"caf\xe9"


def test_two_sources_are_refused_and_so_is_none(tmp_path: Path) -> None:
    with pytest.raises(KeyFault, match="Both"):
        read_passphrase(file=private_file(tmp_path, b"a"), fd=0, prompt=None, purpose="x")
    with pytest.raises(KeyFault, match="no terminal"):
        read_passphrase(file=None, fd=None, prompt=None, purpose="x")


def test_no_error_repeats_the_passphrase(tmp_path: Path) -> None:
    with pytest.raises(KeyFault) as caught:
        from_file(private_file(tmp_path, b"hunter2" * 1000))
    assert "hunter2" not in str(caught.value)


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file as systemd, Kubernetes and Docker provide it; this user plays root."""
    monkeypatch.setattr(passphrase, "ORCHESTRATOR", os.geteuid())
    folder = tmp_path / "..2026_11_30"
    folder.mkdir(mode=0o755)
    (tmp_path / "..data").symlink_to(folder)
    file = folder / "passphrase"
    file.write_bytes(b"correct horse")
    file.chmod(0o440)
    (tmp_path / "passphrase").symlink_to("..data/passphrase")
    return file


def test_a_secret_that_an_orchestrator_gives_is_accepted(secret: Path, tmp_path: Path) -> None:
    assert from_file(secret) == from_file(tmp_path / "passphrase") == b"correct horse"


@pytest.mark.parametrize("mode", [0o444, 0o460, 0o404, 0o450, 0o402, 0o640, 0o660])
def test_a_secret_with_another_mode_is_refused(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    with pytest.raises(KeyFault, match="open to other users"):
        from_file(secret)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_secret_that_others_could_replace_is_refused(secret: Path, mode: int) -> None:
    secret.parent.chmod(mode)
    with pytest.raises(KeyFault, match="open to other users"):
        from_file(secret)


def test_a_file_in_the_folder_of_another_user_than_root_is_refused(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passphrase, "ORCHESTRATOR", os.geteuid() + 1)
    with pytest.raises(KeyFault, match="open to other users"):
        from_file(secret)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_secret_of_a_third_user_is_refused(secret: Path) -> None:
    os.chown(secret, 54321, 54321)
    with pytest.raises(KeyFault, match="open to other users"):
        from_file(secret)


def test_no_variable_of_the_environment_widens_the_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(passphrase, "ORCHESTRATOR", os.geteuid() + 1)
    file = private_file(tmp_path, b"words")
    file.chmod(0o440)
    with pytest.raises(KeyFault, match="open to other users"):
        from_file(file)
