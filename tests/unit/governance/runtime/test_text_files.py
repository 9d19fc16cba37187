import os
from pathlib import Path

import pytest

from governance.runtime.text_files import decoded, read_bounded


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_text_is_decoded_without_its_mark(mark: bytes) -> None:
    assert decoded(mark + "Süd".encode()) == "Süd"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            b"a\nS\xfcd",
            "line 2, byte 2: the byte 0xFC is not UTF-8 text; it looks like Windows-1252",
        ),
        (b"\x81", "line 1, byte 1: the byte 0x81 is not UTF-8 text"),
        ("a".encode("utf-16"), "it is UTF-16 text, and not UTF-8 text"),
        ("abc".encode("utf-16-le"), "it is UTF-16 text, or no text, and not UTF-8 text"),
        (b"\x1f\x8b\x08", "it is compressed with gzip"),
        (b"PAR1....", "it is a Parquet file"),
    ],
)
def test_what_is_no_utf8_text_is_named(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=r"it is|UTF-8") as caught:
        decoded(data)
    assert words in str(caught.value)


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 2048)
    assert len(read_bounded(tmp_path / "f", 2048)) == 2048
    with pytest.raises(ValueError, match="it is larger than 1 kB"):
        read_bounded(tmp_path / "f", 2047)
    with pytest.raises(ValueError, match="it is larger than 3 bytes"):
        read_bounded(tmp_path / "f", 3)


def test_a_pipe_or_a_device_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            read_bounded(path, 10)
    with pytest.raises(IsADirectoryError):
        read_bounded(tmp_path, 10)
