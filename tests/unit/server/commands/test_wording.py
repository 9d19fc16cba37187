"""Files that the commands get are read or refused, and runs are described in words."""

from pathlib import Path

import pytest

from governance.documents.models import MAX_BYTES
from server.answers import Resumptions
from server.commands.wording import missed_words, read_text, resumed_words
from server.errors import GONE, CoordinatorFault


def test_the_text_of_a_document_is_read(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("title: Σ")
    assert read_text(file) == "title: Σ"


def test_a_file_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CoordinatorFault, match="cannot be read"):
        read_text(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"\xe6\xf8\xe5")
    with pytest.raises(CoordinatorFault, match="not UTF-8"):
        read_text(tmp_path / "latin.yaml")
    (tmp_path / "large.yaml").write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(CoordinatorFault, match="larger than"):
        read_text(tmp_path / "large.yaml")


@pytest.mark.parametrize(
    ("times", "ago", "words"),
    [
        (1, 0, "resumed once, last 0 s ago"),
        (2, 119, "resumed twice, last 119 s ago"),
        (3, 120, "resumed 3 times, last 2 minutes ago"),
        (4, 3 * 3_600, "resumed 4 times, last 3 hours ago"),
        (5, 2 * 86_400, "resumed 5 times, last 2 days ago"),
    ],
)
def test_resumptions_are_counted_and_dated(times: int, ago: float, words: str) -> None:
    assert resumed_words(Resumptions(times=times, seconds_ago=ago)) == words


def test_countries_that_can_return_and_countries_that_left_are_named_apart() -> None:
    both = missed_words({"DK": "no reply in time", "EE": GONE, "NO": "no reply in time"})
    away, left = both.removeprefix("to do: ").split("; ask")
    assert "DK, NO" in away
    assert "EE" not in away
    assert "EE is not back in this run" in left
    assert "DK" not in left


def test_only_the_sentence_that_applies_is_printed() -> None:
    assert "not back" not in missed_words({"DK": "no reply in time"})
    assert "can be back" not in missed_words({"DK": GONE})
