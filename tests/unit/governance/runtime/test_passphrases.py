"""Passphrases from the keyboard, a file, or a descriptor."""

import getpass
import os
import sys
from pathlib import Path

import pytest

from governance.runtime.passphrases import chosen_passphrase, known_passphrase
from keys.errors import KeyFault


class ScriptedKeyboard:
    """A keyboard at which a person types these answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
        self.answers, self.asked = list(answers), 0
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(getpass, "getpass", self._typed)

    def _typed(self, prompt: str = "") -> str:
        self.asked += 1
        return self.answers.pop(0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text("four random words\n")
    path.chmod(0o600)
    return path


def test_an_existing_passphrase_is_typed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard = ScriptedKeyboard(monkeypatch, "four random words")
    assert known_passphrase(None, None) == b"four random words"
    assert keyboard.asked == 1


def test_a_new_passphrase_is_typed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard = ScriptedKeyboard(monkeypatch, "four random words", "four random words")
    assert chosen_passphrase(None, None) == b"four random words"
    assert keyboard.asked == 2


def test_a_mistyped_new_passphrase_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ScriptedKeyboard(monkeypatch, "four random words", "four random word")
    with pytest.raises(KeyFault, match="differ") as caught:
        chosen_passphrase(None, None)
    assert caught.value.why
    assert caught.value.fix
    assert "random" not in str(caught.value)


def test_a_file_or_descriptor_needs_no_keyboard(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    keyboard = ScriptedKeyboard(monkeypatch)
    assert chosen_passphrase(file, None) == known_passphrase(file, None) == b"four random words"
    reading, writing = os.pipe()
    os.write(writing, b"from a pipe\n")
    os.close(writing)
    assert chosen_passphrase(None, reading) == b"from a pipe"
    assert keyboard.asked == 0


def test_without_a_keyboard_nothing_waits_for_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    monkeypatch.setattr(getpass, "getpass", lambda _: pytest.fail("it asked"))
    with pytest.raises(KeyFault) as caught:
        known_passphrase(None, None)
    assert caught.value.fix


def test_an_empty_passphrase_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ScriptedKeyboard(monkeypatch, "", "")
    with pytest.raises(KeyFault):
        chosen_passphrase(None, None)
