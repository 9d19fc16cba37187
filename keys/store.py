"""The key store: named secrets in one private directory, encrypted under a passphrase.

    store.header    format, scrypt cost, salt, and a sealed empty value: detects a wrong passphrase
    <name>.sealed   one secret, bound to its name
    .<name>.*.tmp   an interrupted write: ignored, and removed with its secret

It keeps secrets from whoever copies the directory. Whoever can write to it can restore an older
copy of a secret, and a copy made earlier still opens after `delete`, by the same passphrase.
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
from keys.errors import KeyFault
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
"""32 MiB three times over: one of the equal choices of the OWASP Password Storage Cheat Sheet."""
SCRYPT_COST_LIMIT = 2**20  # 1 GiB: the header says the cost before anything vouches for it

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
SECRET_LIMIT_BYTES = 2**20


class KeyStore:
    """Named secrets, each in its own sealed file. Names are lower-case letters, digits, hyphens.

    Secrets are at most 1 MiB. Two processes may use one store; the last `put` of a name stands.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        self._path, self._key = path, key

    @classmethod
    def create(cls, path: Path, passphrase: bytes, *, cost: int = SCRYPT_COST) -> Self:
        """Make an empty store in the directory `path`, which is made if need be (mode 0700).

        `cost` is scrypt's n, a power of two. Raises KeyFault when the directory holds anything.
        """
        _prepare_directory(path)
        _write(path / HEADER_NAME, _new_header(passphrase, cost))
        return cls.open(path, passphrase)

    @classmethod
    def open(cls, path: Path, passphrase: bytes) -> Self:
        """Open the store. It changes nothing.

        Raises KeyFault when there is none, the passphrase is wrong, or the directory or the
        header is open to other users.
        """
        with _plainly(f"There is no key store to open in {path}"):
            refuse_if_shared(path, path.stat())
            header = _read(path / HEADER_NAME, HEADER_BYTES)
        return cls(path, _unlock(path, header, passphrase))

    def put(self, name: str, secret: bytes) -> None:
        """Keep the secret under the name, durably, in place of any former one.

        Until it returns, the former one may be found. Raises KeyFault when it cannot be kept.
        """
        if len(secret) > SECRET_LIMIT_BYTES:
            raise KeyFault(f"The secret {name} is too large", why="at most 1 MiB fits")
        _write(self._place(name), seal(self._key, secret, _bound_to(name)))

    def get(self, name: str) -> bytes:
        """Return the secret.

        Raises KeyFault when there is none, or its file was changed or is open to other users.
        """
        place = self._place(name)
        with _plainly(f"The key store gives no secret named {name}"):
            sealed = _read(place, NONCE_BYTES + SECRET_LIMIT_BYTES + TAG_BYTES)
        try:
            return open_sealed(self._key, sealed, _bound_to(name))
        except KeyFault:
            raise KeyFault(
                f"The secret {name} does not open",
                why=f"{place} was changed, or belongs to another name or another store",
                fix="restore this file from a backup of the same store",
            ) from None

    def names(self) -> list[str]:
        """Return the names held, sorted."""
        return sorted(place.stem for place in self._path.glob("[!.]*.sealed"))

    def delete(self, name: str) -> None:
        """Remove the secret, durably, with what cut-short writes left of it.

        Raises KeyFault when there is none.
        """
        place = self._place(name)
        with _plainly(f"The secret {name} cannot be deleted"):
            for left in self._path.glob(f".{name}.*.tmp"):
                left.unlink(missing_ok=True)
            place.unlink()
            sync_directory(self._path)

    def _place(self, name: str) -> Path:
        if not NAME_PATTERN.fullmatch(name):
            raise KeyFault(
                f"{name!r} cannot name a secret",
                why="names are at most 100 lower-case letters, digits and hyphens",
            )
        return self._path / f"{name}.sealed"


def _bound_to(name: str) -> bytes:
    return frame(FORMAT, b"secret", name.encode())


def _prepare_directory(path: Path) -> None:
    with _plainly(f"{path} cannot hold a key store"):
        path.mkdir(mode=OWNER_DIRECTORY, parents=True, exist_ok=True)
        sync_directory(path.parent)
        refuse_if_shared(path, path.stat())
        held = [entry.name for entry in path.iterdir()]
    if any(not name.startswith(".") for name in held):  # a cut-short write is no obstacle
        raise KeyFault(
            f"A key store cannot be made in {path}",
            why="the directory is not empty; keys already there would be lost",
            fix="open the store that is there, or name a new directory",
        )


def _new_header(passphrase: bytes, cost: int) -> bytes:
    if cost.bit_count() != 1 or not 1 < cost <= SCRYPT_COST_LIMIT:
        raise KeyFault("The scrypt cost is not usable", why="it is a power of two up to 2^20")
    start = FORMAT + bytes([cost.bit_length() - 1]) + secrets.token_bytes(SALT_BYTES)
    return start + seal(_stretch(passphrase, start), b"", start)


def _unlock(path: Path, header: bytes, passphrase: bytes) -> bytes:
    start = header[: -(NONCE_BYTES + TAG_BYTES)]
    if not _is_header(header):
        raise KeyFault(
            f"{path} holds no key store that this version can read",
            why=f"{HEADER_NAME} is damaged or of a newer format",
            fix="restore it from a backup, or use the newer version",
        )
    key = _stretch(passphrase, start)
    try:
        open_sealed(key, header[len(start) :], start)
    except KeyFault:
        raise KeyFault(
            f"The passphrase does not open the key store in {path}",
            why="it is not the passphrase that the store was made with; nothing was changed",
            fix="type it again, or check the file it is read from",
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


def _read(place: Path, limit: int) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(place, flags), "rb") as opened:
        refuse_if_shared(place, os.fstat(opened.fileno()))
        return opened.read(limit + 1)


def _write(place: Path, data: bytes) -> None:
    with _plainly(f"{place} cannot be written"):
        replace_private(place, data)


@contextmanager
def _plainly(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fix = "check that the path is right, the disk has room, and this user may use it"
        raise KeyFault(what, why=str(error), fix=fix) from None
