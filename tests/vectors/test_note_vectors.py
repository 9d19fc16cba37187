"""C2SP signed notes: keys, notes and malformed notes of the specification and of golang/mod."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from governance.audit.note import NoteKey, open_note, sign_note
from governance.errors import LogFault
from keys.identity import SigningKey
from tests.support.published_vectors import vectors

FILE = vectors("c2sp-notes", "signed-note.json")


def read(path: Path) -> dict[str, Any]:
    cases: dict[str, Any] = json.loads(path.read_text())
    return cases


@pytest.mark.parametrize("path", FILE)
def test_good_keys_are_read_and_written_back(path: Path) -> None:
    for text in read(path)["verifiers_ok"]:
        assert NoteKey.from_text(text).to_text() == text


@pytest.mark.parametrize("path", FILE)
def test_bad_keys_are_refused(path: Path) -> None:
    for text in read(path)["verifiers_bad"]:
        with pytest.raises(LogFault, match="public key"):
            NoteKey.from_text(text)


@pytest.mark.parametrize("path", FILE)
def test_notes_verify(path: Path) -> None:
    for case in read(path)["signed_notes"]:
        data = (case["text"] + "\n" + case["sig"]).encode()
        assert open_note(data, NoteKey.from_text(case["vkey"])) == case["text"]


@pytest.mark.parametrize("path", FILE)
def test_signing_gives_the_same_bytes(path: Path) -> None:
    vector = read(path)
    secret = base64.b64decode(vector["signer_key_test_only"].split("+", 4)[4])
    key = SigningKey.from_bytes(secret[1:])
    cases = [case for case in vector["signed_notes"] if "PeterNeumann" in case["vkey"]]
    assert cases
    for case in cases:
        assert NoteKey("PeterNeumann", key.public).to_text() == case["vkey"]
        note = sign_note(case["text"], "PeterNeumann", key)
        assert note.decode() == case["text"] + "\n" + case["sig"]


@pytest.mark.parametrize("path", FILE)
def test_the_cases_of_open_have_their_results(path: Path) -> None:
    for case in read(path)["open_cases"]:
        known = [NoteKey.from_text(text) for text in case["known_vkeys"]]
        opened = [verifies(case["message"].encode(), key) for key in known]
        assert (bool(opened) and all(opened)) is case["accept"], case["desc"]


def verifies(data: bytes, key: NoteKey) -> bool:
    try:
        open_note(data, key)
    except LogFault:
        return False
    return True
