"""Sign, parse and verify C2SP notes with Ed25519 (c2sp.org/signed-note)."""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from governance.errors import LogFault
from keys.errors import KeyFault
from keys.identity import SigningKey, VerifyKey

LARGEST_NOTE = 64 * 1024
MAX_SIGNATURES = 100
KEY_ID_BYTES = 4
SEPARATOR, DASH = "\n\n", "— "
NAME = re.compile(r"[^\s+]+")
LINE = re.compile(rf"{DASH}(?P<name>[^\s+]+) (?P<signature>[A-Za-z0-9+/]+={{0,2}})")
VKEY = re.compile(r"(?P<name>[^\s+]+)\+(?P<id>[0-9a-f]{8})\+(?P<key>[A-Za-z0-9+/]+={0,2})")
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


class Algorithm(IntEnum):
    """Signature types of the C2SP registry whose public keys are Ed25519's."""

    ED25519 = 1
    COSIGNATURE = 4


@dataclass(frozen=True)
class NoteKey:
    """A named verifier, written as `name+keyid+base64`, the C2SP vkey form."""

    name: str
    key: VerifyKey
    algorithm: Algorithm = Algorithm.ED25519

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise LogFault(
                f"{self.name!r} cannot name a log", why="a name has no space and no plus sign"
            )

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse a vkey. Raises LogFault."""
        match = VKEY.fullmatch(text)
        try:
            typed = _decode(match["key"]) if match else b""
            key = cls(match["name"] if match else "", VerifyKey(typed[1:]), Algorithm(typed[0]))
            canonical = key.to_text()
        except (KeyFault, LogFault, ValueError, IndexError):
            raise _bad_key(text) from None
        if canonical != text:
            raise _bad_key(text)
        return key

    def to_text(self) -> str:
        """Return the vkey."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(self._typed).decode()}"

    @property
    def key_id(self) -> bytes:
        """Four bytes that distinguish keys of one name; no security depends on them."""
        return hashlib.sha256(self.name.encode() + b"\n" + self._typed).digest()[:KEY_ID_BYTES]

    @property
    def _typed(self) -> bytes:
        return bytes([self.algorithm]) + self.key.raw


@dataclass(frozen=True)
class NoteSignature:
    """One signature line: the signer's name, the 4-byte key id, and the signature."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True)
class Note:
    """A parsed note: the signed text, ending in a newline, and its signatures, not verified."""

    text: str
    signatures: tuple[NoteSignature, ...]


def sign_note(text: str, name: str, key: SigningKey) -> bytes:
    """Return the signed note in bytes. Raises LogFault if text or name is not allowed in one."""
    key_id = NoteKey(name, key.public).key_id
    signature = base64.b64encode(key_id + key.sign(text.encode())).decode()
    note = f"{text}\n{DASH}{name} {signature}\n".encode()
    parse_note(note)
    return note


def parse_note(data: bytes) -> Note:
    """Parse a note strictly, without verifying it. Raises LogFault."""
    text, separator, lines = _decode_text(data).rpartition(SEPARATOR)
    if not separator or not text or not lines.endswith("\n"):
        raise _bad_note("it has no signed text or no signature")
    signatures = lines[:-1].split("\n")
    if len(signatures) > MAX_SIGNATURES:
        raise _bad_note(f"it has more than {MAX_SIGNATURES} signatures")
    return Note(text + "\n", tuple(map(_parse_line, signatures)))


def open_note(data: bytes, key: NoteKey) -> str:
    """Verify the signature by `key` and return the text; ignore other signers. Raises LogFault."""
    if key.algorithm is not Algorithm.ED25519:
        raise LogFault(
            f"The key of {key.name} is a witness key",
            why="a witness's signature does not replace the log's",
        )
    note = parse_note(data)
    lines = [line for line in note.signatures if (line.name, line.key_id) == (key.name, key.key_id)]
    if not lines:
        raise LogFault(f"The note is not signed by {key.name}", fix="ask for the signed note")
    for line in lines:
        _verify(key, line.signature, note.text)
    return note.text


def _verify(key: NoteKey, signature: bytes, text: str) -> None:
    try:
        key.key.verify(signature, text.encode())
    except KeyFault as fault:
        raise LogFault(
            f"The signature of {key.name} under a note is not valid",
            why="the note was changed after it was signed, or another key signed it",
        ) from fault


def _decode_text(data: bytes) -> str:
    if len(data) > LARGEST_NOTE:
        raise _bad_note("it is too large")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise _bad_note("it is not UTF-8 text") from None
    if CONTROL.search(text):
        raise _bad_note("it contains a control character")
    return text


def _parse_line(line: str) -> NoteSignature:
    match = LINE.fullmatch(line)
    if not match:
        raise _bad_note("a signature line is malformed")
    signature = _decode(match["signature"])
    if len(signature) <= KEY_ID_BYTES:
        raise _bad_note("a signature is too short")
    return NoteSignature(match["name"], signature[:KEY_ID_BYTES], signature[KEY_ID_BYTES:])


def _decode(text: str) -> bytes:
    """Decode base64; refuse any other encoding of the same bytes (by its unused bits)."""
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise _bad_note("its base64 is malformed") from None
    if base64.b64encode(data).decode() != text:
        raise _bad_note("its base64 is not canonical")
    return data


def _bad_note(why: str) -> LogFault:
    return LogFault("This is not a signed note", why=why)


def _bad_key(text: str) -> LogFault:
    return LogFault(
        "This is not a log's public key",
        why=f"{text[:80]!r} is not of the form name+id+key",
        fix="copy the whole line again from where it was shown",
    )
