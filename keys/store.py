"""The key store: named secrets in one private directory, encrypted under a passphrase.

    store.header    format, scrypt cost, salt, and a sealed empty value: detects a wrong passphrase
    <name>.sealed   one secret, bound to its name
    .<name>.*.tmp   an interrupted write: ignored, and removed with its secret

It protects secrets from a person who copies the directory. A person who can write to the directory
can restore an older copy of a secret. A copy that was made before `delete` still opens with the
passphrase.
"""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from keys.derive import frame
from keys.errors import KeyFault, reason_of
from keys.files import replace_private, sync_directory
from keys.permissions import OWNER_DIRECTORY, refuse_if_shared
from keys.sealing import KEY_BYTES, NONCE_BYTES, TAG_BYTES, open_sealed, seal

FORMAT = b"pratique/keystore/v1"
HEADER_NAME = "store.header"
SALT_BYTES = 16
HEADER_BYTES = len(FORMAT) + 1 + SALT_BYTES + NONCE_BYTES + TAG_BYTES

SCRYPT_COST = 2**15
SCRYPT_BLOCK = 8
SCRYPT_PARALLEL = 3
"""32 MiB, three times: one of the equivalent choices of the OWASP Password Storage Cheat Sheet."""
SCRYPT_COST_LIMIT = 2**20  # 1 GiB: the cost is read from a header not yet authenticated

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
SECRET_LIMIT_BYTES = 2**20


class KeyStore:
    """Named secrets, each in its own sealed file. Names are lower-case letters, digits, hyphens.

    Secrets are at most 1 MiB. Two processes may use one store; the last `put` of a name counts.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        self._path, self._key = path, key

    @classmethod
    def create(cls, path: Path, passphrase: bytes, *, cost: int = SCRYPT_COST) -> Self:
        """Create an empty store in the directory `path`, and the directory if needed (mode 0700).

        `cost` is scrypt's n, a power of two. Raises KeyFault if the directory is not empty.
        """
        _prepare_directory(path)
        _write(path / HEADER_NAME, _new_header(passphrase, cost))
        return cls.open(path, passphrase)

    @classmethod
    def open(cls, path: Path, passphrase: bytes) -> Self:
        """Open the store, without changing it.

        Raises KeyFault if there is none, if the passphrase is wrong, or if the directory or the
        header is open to other users.
        """
        with _file_errors(f"There is no key store to open in {path}"):
            refuse_if_shared(path, path.stat())
            header = _read(path / HEADER_NAME, HEADER_BYTES)
        return cls(path, _unlock(path, header, passphrase))

    def put(self, name: str, secret: bytes) -> None:
        """Store the secret durably under the name, in place of any former one.

        Until this returns, `get` may return the former one. Raises KeyFault if it cannot be stored.
        """
        if len(secret) > SECRET_LIMIT_BYTES:
            raise KeyFault(f"The secret {name} is too large", why="at most 1 MiB is allowed")
        _write(self._file(name), seal(self._key, secret, _bound_to(name)))

    def get(self, name: str) -> bytes:
        """Return the secret.

        Raises KeyFault if there is none, or if its file was changed or is open to other users.
        """
        file = self._file(name)
        with _file_errors(f"The key store has no secret named {name} that can be read"):
            sealed = _read(file, NONCE_BYTES + SECRET_LIMIT_BYTES + TAG_BYTES)
        try:
            return open_sealed(self._key, sealed, _bound_to(name))
        except KeyFault:
            raise KeyFault(
                f"The secret {name} cannot be opened",
                why=f"the file {file} was changed, or belongs to another name or another store",
                fix="restore this file from a backup of the same store",
            ) from None

    def names(self) -> list[str]:
        """Return the names of all secrets, sorted."""
        return sorted(file.stem for file in self._path.glob("[!.]*.sealed"))

    def delete(self, name: str) -> None:
        """Delete the secret durably, with the temporary files of interrupted writes of it.

        Raises KeyFault if there is none.
        """
        file = self._file(name)
        with _file_errors(f"The secret {name} cannot be deleted"):
            for temporary in self._path.glob(f".{name}.*.tmp"):
                temporary.unlink(missing_ok=True)
            file.unlink()
            sync_directory(self._path)

    def _file(self, name: str) -> Path:
        if not NAME_PATTERN.fullmatch(name):
            raise KeyFault(
                f"The text {name!r} cannot be the name of a secret",
                why="names are at most 100 lower-case letters, digits and hyphens",
            )
        return self._path / f"{name}.sealed"


def _bound_to(name: str) -> bytes:
    return frame(FORMAT, b"secret", name.encode())


def _prepare_directory(path: Path) -> None:
    with _file_errors(f"The folder {path} cannot hold a key store"):
        path.mkdir(mode=OWNER_DIRECTORY, parents=True, exist_ok=True)
        sync_directory(path.parent)
        refuse_if_shared(path, path.stat())
        names = [entry.name for entry in path.iterdir()]
    if any(not name.startswith(".") for name in names):  # an interrupted write may stay
        raise KeyFault(
            f"A key store cannot be made in {path}",
            why="the directory is not empty; keys already there would be lost",
            fix="open the store that is there, or name a new directory",
        )


def _new_header(passphrase: bytes, cost: int) -> bytes:
    if cost.bit_count() != 1 or not 1 < cost <= SCRYPT_COST_LIMIT:
        raise KeyFault("The scrypt cost is not usable", why="it must be a power of two up to 2^20")
    start = FORMAT + bytes([cost.bit_length() - 1]) + secrets.token_bytes(SALT_BYTES)
    return start + seal(_stretch(passphrase, start), b"", start)


def _unlock(path: Path, header: bytes, passphrase: bytes) -> bytes:
    start = header[: -(NONCE_BYTES + TAG_BYTES)]
    if not _is_header(header):
        raise KeyFault(
            f"The folder {path} holds no key store that this version can read",
            why=f"the file {HEADER_NAME} is damaged or of a newer format",
            fix="restore it from a backup, or use the newer version",
        )
    key = _stretch(passphrase, start)
    try:
        open_sealed(key, header[len(start) :], start)
    except KeyFault:
        raise KeyFault(
            f"The passphrase does not open the key store in {path}",
            why="it is not the passphrase that the store was made with; nothing was changed",
            fix="type it again, or check the file that it is read from",
        ) from None
    return key


def _is_header(header: bytes) -> bool:
    if len(header) != HEADER_BYTES or not header.startswith(FORMAT):
        return False
    return header[len(FORMAT)] in range(1, SCRYPT_COST_LIMIT.bit_length())


def _cost(start: bytes) -> int:
    return 1 << start[len(FORMAT)]


def _stretch(passphrase: bytes, start: bytes) -> bytes:
    """Derive the store's key: scrypt (RFC 7914) at the cost and with the salt in the header."""
    salt = start[-SALT_BYTES:]
    return Scrypt(salt, KEY_BYTES, _cost(start), SCRYPT_BLOCK, SCRYPT_PARALLEL).derive(passphrase)


def _read(file: Path, limit: int) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(file, flags), "rb") as opened:
        refuse_if_shared(file, os.fstat(opened.fileno()))
        return opened.read(limit + 1)


def _write(file: Path, data: bytes) -> None:
    with _file_errors(f"{file} cannot be written"):
        replace_private(file, data)


@contextmanager
def _file_errors(what: str) -> Iterator[None]:
    """Raise an OSError of the block as a KeyFault."""
    try:
        yield
    except OSError as error:
        fix = "check that the path is right, the disk has room, and this user may use it"
        raise KeyFault(what, why=reason_of(error), fix=fix) from None
