"""The officer's folder: settings, keys, the country's documents, and what was verified before.

officer.yaml        who the officer is, and where exchange and node are
country.pub         the public document key, for the node and the coordinator
keys/               the key store
documents/          the role of the country (governance/trust/signing.py)
trust/              the pinned root, the draft signed last, the highest versions seen
studies/            the studies decided on, so that a permit can be withdrawn without the exchange
seen/               checkpoints of logs verified before
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from governance.documents.models import Country, Line, PublicKey
from governance.documents.problems import first_problem
from governance.documents.reading import read_settings
from governance.documents.yaml_text import dump_yaml
from governance.officer.errors import OfficerFault
from governance.runtime.files import write_atomic
from governance.runtime.homes import is_unfinished, made_whole
from keys.errors import reason_of
from keys.identity import SigningKey, VerifyKey
from keys.store import KeyStore
from protocols.wire.encoding import Digest

DOCUMENT_KEY = "document-key"
NEXT_KEY = "next-document-key"
TRANSPORT_KEY = "transport-key"
"""Names in the key store."""


class Settings(BaseModel):
    """The settings: written by `keygen` and `enrol`, and the node's folder by `--node`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    country: Country
    authority: Line
    document_key: PublicKey
    federation: str | None = None
    exchange: Annotated[str, Field(max_length=260)] | None = None
    root_digest: Digest | None = None
    """Digest of the TUF root, from the invitation."""
    node: str | None = None

    @property
    def verify_key(self) -> VerifyKey:
        """The country's public document key."""
        return VerifyKey.from_text(self.document_key)


@dataclass(frozen=True)
class OfficerHome:
    """Paths of one officer's folder, and its settings."""

    path: Path

    @property
    def settings_file(self) -> Path:
        """The settings."""
        return self.path / "officer.yaml"

    @property
    def key_file(self) -> Path:
        """The public document key, as text."""
        return self.path / "country.pub"

    @property
    def keys(self) -> Path:
        """The key store."""
        return self.path / "keys"

    @property
    def documents(self) -> Path:
        """The country's documents."""
        return self.path / "documents"

    @property
    def trust(self) -> Path:
        """The pinned root and what each verification of the published documents starts from."""
        return self.path / "trust"

    @property
    def studies(self) -> Path:
        """Studies decided on, by digest."""
        return self.path / "studies"

    @property
    def seen(self) -> Path:
        """Checkpoints and log keys seen before."""
        return self.path / "seen"

    @property
    def handed_file(self) -> Path:
        """The versions of the country's documents that node and exchange have."""
        return self.path / "handed.json"

    @property
    def foreign_file(self) -> Path:
        """The country's documents that the exchange showed and this folder did not sign."""
        return self.path / "not-signed-here.json"

    @property
    def authority_file(self) -> Path:
        """The federation's transport authority."""
        return self.path / "authority.pem"

    @property
    def certificate_file(self) -> Path:
        """The officer's transport certificate."""
        return self.path / "certificate.pem"

    def settings(self) -> Settings:
        """Read the settings. Raises OfficerFault if they are missing or cannot be used."""
        try:
            return read_settings(Settings, self.settings_file)
        except FileNotFoundError:
            raise OfficerFault(
                f"There is no officer in {self.path}",
                why=f"the folder has no {self.settings_file.name}",
                fix="run `pratique-officer keygen` once, or name the right folder with --home",
            ) from None
        except (OSError, ValueError) as error:
            raise self._unusable(reason_of(error)) from None

    def _unusable(self, why: str) -> OfficerFault:
        return OfficerFault(
            f"The file {self.settings_file} cannot be used",
            why=why,
            fix="correct it, or restore it from a backup",
        )

    def save(self, settings: Settings) -> None:
        """Write the settings. Raises DocumentFault if they cannot be written."""
        values = settings.model_dump(mode="json", exclude_none=True)
        write_atomic(self.settings_file, dump_yaml(values))

    def write_key_file(self, settings: Settings) -> None:
        """Write the public document key as text."""
        write_atomic(self.key_file, f"{settings.document_key}\n".encode())


@dataclass(frozen=True)
class Identity:
    """An officer's unlocked key store; `next_key` replaces `key` once the agreement names it."""

    store: KeyStore
    key: SigningKey
    next_key: SigningKey | None = None

    @classmethod
    def open(cls, home: OfficerHome, settings: Settings, passphrase: bytes) -> Self:
        """Unlock the store, and finish a change of key that was interrupted.

        Raises KeyFault, or OfficerFault if the store contains another key than the settings name.
        """
        store = KeyStore.open(home.keys, passphrase)
        key, later = SigningKey.from_bytes(store.get(DOCUMENT_KEY)), _next_key(store)
        if later is not None and later.public == settings.verify_key:
            return cls(store, later).settled()  # the change of key was interrupted
        if key.public != settings.verify_key:
            raise OfficerFault(
                f"The key in {home.keys} is not the one that {home.settings_file.name} names",
                why="one of them was replaced",
                fix="restore both from the same backup",
            )
        return cls(store, key, None if later is None or later.public == key.public else later)

    @property
    def keys(self) -> tuple[SigningKey, ...]:
        """The key in force, then the next key, if there is one."""
        return (self.key,) if self.next_key is None else (self.key, self.next_key)

    def with_next(self, key: SigningKey) -> Self:
        """Store the next key, before any document names it."""
        self.store.put(NEXT_KEY, key.to_bytes())
        return replace(self, next_key=key)

    def settled(self) -> Self:
        """Store the key as the only one, which deletes the former key."""
        self.store.put(DOCUMENT_KEY, self.key.to_bytes())
        if NEXT_KEY in self.store.names():
            self.store.delete(NEXT_KEY)
        return replace(self, next_key=None)


def _next_key(store: KeyStore) -> SigningKey | None:
    return SigningKey.from_bytes(store.get(NEXT_KEY)) if NEXT_KEY in store.names() else None


def create_home(
    home: OfficerHome, country: str, authority: str, passphrase: Callable[[], bytes]
) -> Settings:
    """Create the folder, its key store and a new document key.

    `passphrase` is called once everything else could be used. Raises OfficerFault if the folder has
    an officer already: others know the country by that key. Raises HomeFault, KeyFault; then
    nothing was made.
    """
    _refuse_second(home)
    key = SigningKey.generate()
    settings = _new_settings(country, authority, key.public)
    secret = passphrase()
    with made_whole(home.path, home.settings_file.name) as folder:
        draft = OfficerHome(folder)
        KeyStore.create(draft.keys, secret).put(DOCUMENT_KEY, key.to_bytes())
        draft.write_key_file(settings)
        draft.save(settings)
    return settings


def _refuse_second(home: OfficerHome) -> None:
    keys_alone = any(home.keys.glob("*")) and not is_unfinished(home.path)
    if home.settings_file.exists() or keys_alone:
        raise OfficerFault(
            f"There is an officer in {home.path} already",
            why="a second key would replace the one by which others know your country",
            fix="use the key that is there, or name another folder with --home",
        )


def _new_settings(country: str, authority: str, key: VerifyKey) -> Settings:
    try:
        return Settings(country=country, authority=authority, document_key=key.to_text())
    except ValidationError as error:
        raise OfficerFault(
            f"The {error.errors()[0]['loc'][0]} cannot be used",
            why=first_problem(Settings, error),
            fix="correct it; nothing was created",
        ) from None
