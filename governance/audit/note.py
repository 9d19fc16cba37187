"""C2SP signed notes with Ed25519 (c2sp.org/signed-note): made, parsed and verified."""

from dataclasses import dataclass

from keys.identity import SigningKey, VerifyKey


@dataclass(frozen=True)
class NoteKey:
    """A named Ed25519 verifier: `name+keyid+base64`, the C2SP vkey form."""

    name: str
    key: VerifyKey

    @classmethod
    def from_text(cls, text: str) -> "NoteKey":
        """Parse a vkey. Raises LogFault."""
        raise NotImplementedError

    def to_text(self) -> str:
        """Return the vkey."""
        raise NotImplementedError


@dataclass(frozen=True)
class NoteSignature:
    """One signature line: whose name, which 4-byte key id, and the signature."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True)
class Note:
    """A parsed note: signed text, ending in a newline, and its signature lines, not yet checked."""

    text: str
    signatures: tuple[NoteSignature, ...]


def sign_note(text: str, name: str, key: SigningKey) -> bytes:
    """Return the signed note in bytes."""
    raise NotImplementedError


def parse_note(data: bytes) -> Note:
    """Parse strictly, verifying nothing. Raises LogFault."""
    raise NotImplementedError


def open_note(data: bytes, key: NoteKey) -> str:
    """Return the text, signed by `key`. Other signers' lines are ignored. Raises LogFault."""
    raise NotImplementedError
