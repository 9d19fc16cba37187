"""`pratique-node init`: checks the records, then makes keys, state and settings."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from client.commands.records import CONFIRM_FIX, SHOWN, listed, read_records
from client.credentials.keyring import NodeKeyring
from client.errors import NodeFault
from client.home import NodeHome
from client.records.quality_report import QualityReport
from client.records.unmatched import UnmatchedEntry
from client.settings import NodeSettings
from client.state.decision_log import log_origin
from client.state.log_head import LogHeadGuard
from client.state.state_check import StateCheck, open_log
from client.state.tables import MIGRATIONS
from governance.audit.events import Event, EventKind
from governance.documents.permit import NodeKeys
from governance.runtime.database import open_database
from governance.runtime.files import write_atomic
from governance.runtime.homes import made_whole
from governance.runtime.safe_text import escaped
from keys.errors import KeyFault
from keys.identity import VerifyKey
from keys.store import SCRYPT_COST, KeyStore

LARGEST_KEY_FILE = 4096


@dataclass(frozen=True)
class NewNode:
    """A new node: its public keys, what was read of its records, and its officer's key."""

    keys: NodeKeys
    report: QualityReport
    unmatched: tuple[UnmatchedEntry, ...]
    officer: VerifyKey


def officer_key(text_or_file: str) -> VerifyKey:
    """Return the officer's public key, given as text or as a file that contains the text.

    Raises NodeFault if neither is a key.
    """
    path = Path(text_or_file).expanduser()
    try:
        if path.is_file():
            return VerifyKey.from_text(path.read_text(encoding="utf-8")[:LARGEST_KEY_FILE].strip())
        return VerifyKey.from_text(text_or_file.strip())
    except (KeyFault, OSError, UnicodeDecodeError, ValueError):
        raise NodeFault(
            "The officer's key cannot be read",
            why=f"{text_or_file[:80]!r} is neither a key (ed25519:...) nor a file with one",
            fix="use the key that `pratique-officer keygen` printed, or its file country.pub",
        ) from None


def require_fingerprint(key: VerifyKey, fingerprint: str) -> None:
    """Raise NodeFault unless a key has the fingerprint that the operator entered."""
    if key.fingerprint != fingerprint:
        raise NodeFault(
            "The key does not have the fingerprint that you entered",
            why=f"its fingerprint is {key.fingerprint}",
            fix="compare the fingerprint with your officer by voice; nothing was changed",
        )


def unmatched_note(entries: tuple[UnmatchedEntry, ...]) -> str:
    """Return the note on opt-outs that match nobody, with what to do."""
    return escaped(
        f"Note: the opt-out list has entries that match nobody: {listed(entries, SHOWN)}. "
        f"`pratique-node doctor` reports a fault until {CONFIRM_FIX}."
    )


def create_node(
    home: NodeHome,
    settings: NodeSettings,
    passphrase: Callable[[], bytes],
    now: datetime,
    *,
    cost: int = SCRYPT_COST,
) -> NewNode:
    """Make a node in `home`.

    `passphrase` is called once the records could be read. `cost` is the cost of scrypt; only tests
    change it. Raises RecordFault, KeyFault, NodeFault, HomeFault: then nothing was made.
    """
    home.require_free()
    records = read_records(settings)
    secret = passphrase()
    with made_whole(home.path, home.settings_file.name) as folder:
        draft = NodeHome(folder)
        store = KeyStore.create(draft.keys, secret, cost=cost)
        keys = _fill(draft, settings, store, now)
    officer = VerifyKey.from_text(settings.officer_key)
    return NewNode(keys, records.report, records.unmatched, officer)


def _fill(home: NodeHome, settings: NodeSettings, store: KeyStore, now: datetime) -> NodeKeys:
    """Make keys, log and settings; return the public keys."""
    keyring, node_auth = NodeKeyring.create(store)
    keys = _public_keys(settings.country, keyring, node_auth)
    home.officer.mkdir(mode=0o700)
    engine = open_database(home.database, MIGRATIONS)
    log = open_log(engine, keys.log_origin, keyring.log_key, former=False)
    log_head = LogHeadGuard(home, engine, log, StateCheck(engine, log, settings.country))
    log.append(Event(kind=EventKind.NODE_INITIALISED, at=now, actor=settings.country))
    log_head.accept()
    engine.dispose()  # the database is moved with the rest
    write_atomic(home.node_keys, keys.canonical())
    home.write_settings(settings)
    return keys


def _public_keys(country: str, keyring: NodeKeyring, node_auth: str) -> NodeKeys:
    return NodeKeys(
        country=country,
        identity_key=keyring.identity.public.to_text(),
        log_key=keyring.log_key.public.to_text(),
        log_origin=log_origin(country),
        node_auth=node_auth,
    )
