"""Log files stay small: every byte is counted, and no line is split."""

import logging
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from governance.runtime.log_files import LogFile, cut_foreign
from governance.runtime.logs import reopen_on_hangup
from tests.support.captured_logs import Configure

LARGEST, KEPT = 2000, 3


def write_lines(handler: logging.Handler, count: int, text: str = "𝜀 ") -> None:
    for number in range(count):
        record = logging.makeLogRecord({"msg": f"{number:06d} {text * 20}"})
        handler.handle(record)


def sizes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in sorted(folder.iterdir())}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "node.log"


@pytest.fixture
def handler(file: Path) -> Iterator[LogFile]:
    handler = LogFile(file, largest=LARGEST, kept=KEPT)
    yield handler
    handler.close()


def test_files_are_bounded_in_bytes_whatever_is_written(handler: LogFile, file: Path) -> None:
    write_lines(handler, 2000)
    file_sizes = sizes(file.parent)
    assert list(file_sizes) == ["node.log", "node.log.1", "node.log.2", "node.log.3"]
    assert max(file_sizes.values()) <= LARGEST
    assert min(file_sizes[f"node.log.{n}"] for n in (1, 2, 3)) > LARGEST * 0.9
    assert handler.lost == 0


def test_lines_are_complete_and_in_order_over_the_files(handler: LogFile, file: Path) -> None:
    write_lines(handler, 60)
    files = [file.with_name(f"node.log.{n}") for n in (3, 2, 1)]
    text = "".join(path.read_text() for path in (*files, file) if path.exists())
    numbers = [int(line.split()[0]) for line in text.splitlines()]
    assert numbers == list(range(numbers[0], 60))


def test_a_line_larger_than_a_file_gets_a_separate_file(handler: LogFile, file: Path) -> None:
    write_lines(handler, 1)
    write_lines(handler, 1, text="x" * LARGEST)
    write_lines(handler, 1)
    assert [len(path.read_text().splitlines()) for path in sorted(file.parent.iterdir())] == [
        1,
        1,
        1,
    ]


def test_files_are_for_their_owner_only(handler: LogFile, file: Path) -> None:
    write_lines(handler, 200)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
    assert modes == {0o600}


def test_a_link_is_not_followed(tmp_path: Path, file: Path) -> None:
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        LogFile(file)
    assert not (tmp_path / "elsewhere").exists()


def test_sighup_opens_a_new_file_after_logrotate_moved_the_old_one(
    handler: LogFile, file: Path
) -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        reopen_on_hangup(handler)
        write_lines(handler, 1)
        moved = file.rename(file.with_name("node.log-20260101"))
        write_lines(handler, 1)
        assert len(moved.read_text().splitlines()) == 2
        os.kill(os.getpid(), signal.SIGHUP)
        write_lines(handler, 1)
        assert len(moved.read_text().splitlines()) == 2
        assert len(file.read_text().splitlines()) == 1
    finally:
        signal.signal(signal.SIGHUP, before)


def test_sighup_without_a_log_file_ends_nothing() -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        reopen_on_hangup(logging.StreamHandler())
        os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_unwritable_lines_are_dropped_and_counted_without_output(
    handler: LogFile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    write_lines(handler, 1)
    with monkeypatch.context() as patch:
        patch.setattr(handler, "stream", type("Full", (), {"write": full, "fileno": lambda _: 1})())
        write_lines(handler, 3)
    write_lines(handler, 1)
    assert handler.lost == 3
    assert capsys.readouterr().err == ""


def test_the_configured_file_holds_json_lines(configured: Configure, file: Path) -> None:
    configured(file)
    logging.getLogger("pratique").info("connected")
    assert file.read_text().startswith('{"timestamp"')


def test_another_program_s_log_is_truncated_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "superlink.log"
    with path.open("ab", buffering=0) as writer:
        for turn in range(50):
            writer.write(f"{turn:04d} {'x' * 94}\n".encode() * 5)
            cut_foreign(path, largest=2000, kept=2)
            assert sum(sizes(tmp_path).values()) <= 3 * 2000 + 500
        writer.write(b"last\n")
    assert sorted(sizes(tmp_path)) == ["superlink.log", "superlink.log.1", "superlink.log.2"]
    assert path.read_bytes().endswith(b"last\n")
    assert b"\0" not in path.read_bytes()


def test_only_the_end_of_a_long_log_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "superlink.log"
    path.write_bytes(b"x" * 100_000 + b"end")
    assert cut_foreign(path, largest=1000)
    assert path.stat().st_size == 0
    file = path.with_name("superlink.log.1")
    assert file.read_bytes().endswith(b"end")
    assert file.stat().st_size == 1000
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_small_or_missing_log_is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "superlink.log"
    assert not cut_foreign(path)
    path.write_bytes(b"little")
    assert not cut_foreign(path)
    assert sizes(tmp_path) == {"superlink.log": 6}
