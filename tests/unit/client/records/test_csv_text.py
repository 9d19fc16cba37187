import hashlib
import os
from pathlib import Path

import pytest

from client.errors import ContentFault
from client.records import csv_text
from client.records.csv_text import csv_text as opened
from client.records.dictionary import DataDictionary

FEATURE = {"name": "age", "type": "numeric", "bounds": [0, 120]}


def dictionary(**changes: object) -> DataDictionary:
    fields = {"dictionary": 1, "title": "t", "patient": "id", "features": [FEATURE]}
    return DataDictionary.model_validate(fields | changes)


def copied(folder: Path, data: bytes, **changes: object) -> list[tuple[int, list[str]]]:
    (folder / "data.csv").write_bytes(data)
    with opened(folder / "data.csv", dictionary(**changes)) as text:
        assert text.digest == hashlib.sha256(data).hexdigest()
        return list(text.rows())


def test_rows_have_the_line_on_which_they_end(tmp_path: Path) -> None:
    data = b'id,"age\r\n(years)",age\r\na,,1\r\n\r\n"b\r\nc",,2\r\n'
    assert copied(tmp_path, data) == [(3, ["a", "", "1"]), (6, ["b\nc", "", "2"])]


@pytest.mark.parametrize("size", [4, 5, 7])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "windows-1252"])
def test_line_ends_and_letters_may_lie_across_two_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, encoding: str
) -> None:
    monkeypatch.setattr(csv_text, "CHUNK", size)
    data = "id,age\r\nÄ,1\r\n\r\nü,2\r".encode(encoding)
    assert copied(tmp_path, data, encoding=encoding) == [(2, ["Ä", "1"]), (4, ["ü", "2"])]


def test_a_carriage_return_within_quotes_is_kept(tmp_path: Path) -> None:
    assert copied(tmp_path, b'id,age\n"a\rb",1\n') == [(2, ["a\rb", "1"])]


@pytest.mark.parametrize("data", [b'id,age\na,1\n"b,2\n', b"id,age\na,1\nb\rc,2\n"])
def test_what_is_not_csv_names_the_line_where_it_begins(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ContentFault) as caught:
        copied(tmp_path, data)
    assert caught.value.why.startswith("line 3: ")


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("utf-16", b"\xff\xfei\x00d"),
        ("utf-16", b"id,age\n"),
        ("utf-16-le", b"\xef\xbb\xbfid"),
        ("windows-1252", b"\xff\xfei\x00"),
        ("windows-1252", b"id,age\n\x81,1\n"),
        ("windows-1252", "id,age\nä,1\n".encode()),
        ("iso-8859-1", "\ufeffid,age\n".encode()),
    ],
)
def test_another_encoding_than_the_declared_one_is_refused(
    tmp_path: Path, encoding: str, data: bytes
) -> None:
    data = data[:-1] if data == b"\xff\xfei\x00d" else data
    (tmp_path / "data.csv").write_bytes(data)
    with (
        pytest.raises(ContentFault) as caught,
        opened(tmp_path / "data.csv", dictionary(encoding=encoding)),
    ):
        pass
    assert caught.value.fix


def test_nothing_stays_open(tmp_path: Path) -> None:
    copied(tmp_path, b"id,age\na,1\n")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (counts descriptors)
    copied(tmp_path, b"id,age\na,1\n")
    with pytest.raises(ContentFault):
        copied(tmp_path, b"broken")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
