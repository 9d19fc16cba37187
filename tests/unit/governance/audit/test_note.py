import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.audit.note import (
    LARGEST_NOTE,
    Algorithm,
    NoteKey,
    open_note,
    parse_note,
    sign_note,
)
from governance.errors import LogFault
from keys.identity import SigningKey

KEY = SigningKey.from_bytes(bytes(32))
OTHER = SigningKey.from_bytes(bytes([1]) * 32)
NAME = "example.org/log"
OWN = NoteKey(NAME, KEY.public)
TEXT = "one\ntwo\n"
NOTE = sign_note(TEXT, NAME, KEY)


def test_a_note_is_text_blank_line_and_signature() -> None:
    lines = NOTE.decode().split("\n")
    assert lines[:3] == ["one", "two", ""]
    assert lines[3].startswith(f"— {NAME} ")
    assert lines[4:] == [""]
    signature = base64.b64decode(lines[3].split(" ")[2])
    assert signature[:4] == OWN.key_id
    KEY.public.verify(signature[4:], TEXT.encode())


def test_a_note_verifies_with_its_own_key_only() -> None:
    assert open_note(NOTE, OWN) == TEXT
    for wrong in (NoteKey(NAME, OTHER.public), NoteKey("other", KEY.public)):
        with pytest.raises(LogFault, match="not signed by"):
            open_note(NOTE, wrong)


def test_a_witness_key_opens_no_note() -> None:
    with pytest.raises(LogFault, match="witness"):
        open_note(NOTE, NoteKey(NAME, KEY.public, Algorithm.COSIGNATURE))


def test_every_flipped_bit_is_refused() -> None:
    for position in range(len(NOTE) * 8):
        changed = bytearray(NOTE)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(LogFault):
            open_note(bytes(changed), OWN)


def test_every_truncation_is_refused() -> None:
    for length in range(len(NOTE)):
        with pytest.raises(LogFault):
            open_note(NOTE[:length], OWN)


def test_another_signer_s_line_is_ignored_and_a_false_line_of_this_key_is_refused() -> None:
    both = NOTE + sign_note(TEXT, "other", OTHER).split(b"\n\n")[1]
    assert open_note(both, OWN) == TEXT
    assert open_note(both, NoteKey("other", OTHER.public)) == TEXT
    forged = base64.b64encode(OWN.key_id + bytes(64)).decode()
    with pytest.raises(LogFault, match="not valid"):
        open_note(NOTE + f"— {NAME} {forged}\n".encode(), OWN)


def test_the_text_may_hold_blank_lines() -> None:
    text = "one\n\ntwo\n\n\nthree\n"
    assert open_note(sign_note(text, NAME, KEY), OWN) == text


@pytest.mark.parametrize("text", ["", "no end of line", "tab\there\n", "bell\x07\n"])
def test_invalid_texts_are_not_signed(text: str) -> None:
    with pytest.raises(LogFault):
        sign_note(text, NAME, KEY)


@pytest.mark.parametrize("name", ["", "two words", "plus+sign", "tab\there", "wide\u3000space"])
def test_invalid_key_names_are_refused(name: str) -> None:
    with pytest.raises(LogFault, match="name"):
        sign_note(TEXT, name, KEY)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no signed text"),
        (b"\n\n", "no signed text"),
        (b"text\n\n\xff\n", "UTF-8"),
        (b"text\n\n- name AAAAAAAAAA==\n", "malformed"),
        ("text\n\n— name AAAAAA==\n".encode(), "too short"),
        ("text\n\n— name A\n".encode(), "base64"),
        ("text\n\n— name AAAAAAB=\n".encode(), "canonical"),
        ("text\n\n" + "— name AAAAAAA=\n" * 101, "more than 100"),
        (b"x" * (LARGEST_NOTE + 1), "too large"),
    ],
)
def test_malformed_notes_are_refused_and_say_why(data: bytes | str, why: str) -> None:
    with pytest.raises(LogFault) as caught:
        parse_note(data if isinstance(data, bytes) else data.encode())
    assert why in caught.value.why


@given(st.binary(max_size=300))
def test_any_bytes_are_a_note_or_a_log_fault(data: bytes) -> None:
    for candidate in (data, b"text\n\n" + data, NOTE + data):
        try:
            parse_note(candidate)
        except LogFault:
            continue


@given(st.text(max_size=120))
def test_any_text_is_a_key_or_a_log_fault(text: str) -> None:
    try:
        key = NoteKey.from_text(text)
    except LogFault:
        return
    assert key.to_text() == text


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_keys_round_trip(algorithm: Algorithm) -> None:
    key = NoteKey(NAME, KEY.public, algorithm)
    assert NoteKey.from_text(key.to_text()) == key


def test_every_flipped_byte_of_a_key_is_refused_or_another_key() -> None:
    text = OWN.to_text()
    for position in range(len(text)):
        changed = text[:position] + chr(ord(text[position]) ^ 1) + text[position + 1 :]
        with pytest.raises(LogFault):
            NoteKey.from_text(changed)
