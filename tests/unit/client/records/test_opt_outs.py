from pathlib import Path

import pytest

from client.errors import RecordFault
from client.records import opt_outs
from client.records.opt_outs import read_opt_outs


def test_ids_are_read_one_a_line_without_comments(tmp_path: Path) -> None:
    path = tmp_path / "optout.txt"
    path.write_text("\ufeffa1\n\n  a2  # by letter, March\n# a3\r\na4\r\n", encoding="utf-8")
    assert list(read_opt_outs(path)) == ["a1", "a2", "a4"]


def test_an_empty_list_names_nobody(tmp_path: Path) -> None:
    path = tmp_path / "optout.txt"
    path.write_text("")
    assert read_opt_outs(path) == {}


def test_a_list_that_cannot_be_read_is_an_error_and_not_empty(tmp_path: Path) -> None:
    with pytest.raises(RecordFault) as caught:
        read_opt_outs(tmp_path / "absent.txt")
    assert "absent.txt cannot be read" in caught.value.what
    assert "the refusals of patients cannot be respected" in caught.value.why
    assert "one patient id a line" in caught.value.fix
    (tmp_path / "binary").write_bytes(b"a1\n\xff\xfe")
    with pytest.raises(RecordFault, match="not UTF-8"):
        read_opt_outs(tmp_path / "binary")


def test_a_huge_list_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opt_outs, "LARGEST_LIST", 3)
    (tmp_path / "optout.txt").write_text("a1\na2\n")
    with pytest.raises(RecordFault, match="larger than 3 bytes"):
        read_opt_outs(tmp_path / "optout.txt")
