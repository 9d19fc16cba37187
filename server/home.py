"""The coordinator's folder: settings, keys, and the paths of everything else."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
)

from governance.audit.events import Event, EventKind
from governance.audit.log_key import LogKey
from governance.documents.reading import read_settings
from governance.documents.yaml_text import dump_yaml
from governance.runtime.homes import is_unfinished, made_whole
from governance.runtime.loopback import LoopbackAddress
from keys.certificates import TransportAuthority, is_host
from keys.composite import CompositeSigningKey, Identity, identity_from_bytes
from keys.errors import reason_of
from keys.files import replace_private
from keys.identity import SigningKey
from keys.store import KeyStore
from protocols.wire.signed_message import COORDINATOR
from server.errors import CoordinatorFault
from server.membership.transport_authority import ExchangeTransport

SETTINGS_FILE = "coordinator.yaml"
HOME_VARIABLE = "PRATIQUE_COORDINATOR_HOME"
"""The environment variable that names this folder to the server app, which Flower starts."""

IDENTITY, DOCUMENTS, ONLINE, LOG = "identity", "documents", "online", "log"
_ED25519_KEYS = (DOCUMENTS, ONLINE)

HIGHEST_PORT = 65535
ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 (no address to connect to)


def _checked_address(address: str) -> str:
    port = int(address.rsplit(":", 1)[1])
    if not 1 <= port <= HIGHEST_PORT:
        raise ValueError(f"the port must be from 1 to {HIGHEST_PORT}")
    if not is_host(host_of(address)):
        raise ValueError("a certificate cannot name this host")
    return address


Address = Annotated[
    str,
    StringConstraints(pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$"),
    AfterValidator(_checked_address),
]


class Settings(BaseModel):
    """The settings that `init` wrote."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    federation: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    listen: Address
    """Host and port on which the exchange listens."""
    address: Address
    """Host and port at which the parties reach the exchange."""
    observe: LoopbackAddress | None = None
    """Host and port of the metrics and health pages, on loopback only; None: no such pages."""
    log_file: Path | None = None
    """The file for log lines; None: standard error."""
    reply_seconds: Annotated[float, Field(ge=1, le=3600)] = 120.0
    """How many seconds a connected node may spend on one message before it is asked again."""
    connections_per_address: Annotated[int, Field(ge=1, le=1024)] = 32
    """How many connections of one unknown address may wait for their first call."""

    @property
    def log_origin(self) -> str:
        """The name of the coordinator's audit log."""
        return f"pratique/{self.federation}/coordinator"


@dataclass(frozen=True)
class CoordinatorHome:
    """Paths of one coordinator's folder."""

    path: Path

    @property
    def keys(self) -> Path:
        """The key store."""
        return self.path / "keys"

    @property
    def database(self) -> Path:
        """The state database."""
        return self.path / "state.db"

    @property
    def repository(self) -> Path:
        """The document repository."""
        return self.path / "repository"

    @property
    def socket(self) -> Path:
        """The daemon's local socket."""
        return self.path / "run" / "coordinator.sock"

    @property
    def exchange_socket(self) -> Path:
        """The socket between the exchange's public port and gRPC."""
        return self.socket.with_name("exchange.sock")

    @property
    def superlink(self) -> Path:
        """Flower's folder and logs."""
        return self.path / "superlink"

    @property
    def results(self) -> Path:
        """The released results, one folder for each study."""
        return self.path / "results"

    def settings(self) -> Settings:
        """Read the settings. Raises CoordinatorFault if they are missing or cannot be read."""
        try:
            return read_settings(Settings, self.path / SETTINGS_FILE)
        except FileNotFoundError as error:
            raise CoordinatorFault(
                f"There is no coordinator in {self.path}",
                why=f"the folder has no file {SETTINGS_FILE}",
                fix="run `pratique-coordinator init`, or name the right folder with --home",
            ) from error
        except (OSError, ValueError) as error:
            raise self._unreadable(reason_of(error)) from error

    def require_free(self) -> None:
        """Raise CoordinatorFault if the folder contains a coordinator, or keys."""
        if (self.path / SETTINGS_FILE).exists():
            raise CoordinatorFault(
                f"There is already a coordinator in {self.path}",
                why="a second `init` would destroy its keys",
                fix="choose another folder with --home",
            )
        if self.keys.exists() and not is_unfinished(self.path):
            raise CoordinatorFault(
                f"The folder {self.path} contains the keys of a coordinator, and no settings",
                why=f"{SETTINGS_FILE} was deleted, or an `init` of an earlier version was "
                "interrupted",
                fix="restore the file from a backup, or choose another folder with --home",
            )

    def _unreadable(self, why: str) -> CoordinatorFault:
        return CoordinatorFault(
            f"The file {self.path / SETTINGS_FILE} cannot be read",
            why=why,
            fix="correct it, or restore it from a backup",
        )


@dataclass(frozen=True)
class NextKeys:
    """New keys that are not in force yet; see server/key_rotation.py."""

    identity: Identity
    document_key: SigningKey
    online_key: SigningKey


@dataclass(frozen=True)
class CoordinatorKeys:
    """The coordinator's unlocked keys: one each for messages, documents, freshness and log."""

    identity: Identity
    document_key: SigningKey
    online_key: SigningKey
    log: LogKey
    transport: ExchangeTransport
    next_keys: NextKeys | None = None

    @property
    def log_key(self) -> SigningKey:
        """The key that signs the log."""
        return self.log.key

    @classmethod
    def load(cls, home: CoordinatorHome, store: KeyStore) -> Self:
        """Read the keys from the unlocked key store of this home. Raises KeyFault."""
        keys = {name: SigningKey.from_bytes(store.get(name)) for name in _ED25519_KEYS}
        return cls(
            identity=identity_from_bytes(store.get(IDENTITY)),
            document_key=keys[DOCUMENTS],
            online_key=keys[ONLINE],
            log=LogKey.load(store, LOG),
            transport=ExchangeTransport(home.path, _hosts(home.settings()), store),
        )


def create_home(
    home: CoordinatorHome, settings: Settings, passphrase: bytes, now: datetime
) -> TransportAuthority:
    """Create a coordinator's folder, keys, log and certificates; return its transport authority.

    Raises CoordinatorFault if the folder already has a coordinator, HomeFault, KeyFault, or
    StorageFault if its log cannot be started; then nothing was made.
    """
    home.require_free()
    with made_whole(home.path, SETTINGS_FILE) as draft:
        return _fill(CoordinatorHome(draft), settings, passphrase, now)


def _fill(
    home: CoordinatorHome, settings: Settings, passphrase: bytes, now: datetime
) -> TransportAuthority:
    store = KeyStore.create(home.keys, passphrase)
    store.put(IDENTITY, CompositeSigningKey.generate().to_bytes())
    for name in _ED25519_KEYS:
        store.put(name, SigningKey.generate().to_bytes())
    LogKey.create(store, LOG)
    transport = ExchangeTransport.create(
        home.path, _hosts(settings), store, federation=settings.federation, now=now
    )
    _begin_log(home, settings, LogKey.load(store, LOG), now)
    values = settings.model_dump(mode="json", exclude_none=True)
    write_new(home.path / SETTINGS_FILE, dump_yaml(values))
    return transport.in_force(now)


def _begin_log(home: CoordinatorHome, settings: Settings, key: LogKey, now: datetime) -> None:
    from governance.runtime.database import open_database  # noqa: PLC0415 (keeps others quick)
    from server.state.signed_log import open_log  # noqa: PLC0415
    from server.state.tables import MIGRATIONS  # noqa: PLC0415

    engine = open_database(home.database, MIGRATIONS)
    event = Event(kind=EventKind.COORDINATOR_INITIALISED, at=now, actor=COORDINATOR)
    open_log(engine, settings.log_origin, key).append(event)
    engine.dispose()


def _hosts(settings: Settings) -> tuple[str, ...]:
    """Return the host names and addresses of the exchange, without "any address"."""
    hosts = {host_of(settings.listen), host_of(settings.address), "localhost"}
    return tuple(sorted(hosts - ANY_ADDRESS))


def host_of(address: str) -> str:
    """Return the host in `host:port`, without the brackets of an IPv6 address."""
    return address.rsplit(":", 1)[0].strip("[]")


def require_reachable(settings: Settings) -> None:
    """Raise CoordinatorFault if the parties would be sent to "any address"."""
    if host_of(settings.address) in ANY_ADDRESS:
        raise CoordinatorFault(
            f"The parties cannot reach the exchange at {settings.address}",
            why="this means every address of this machine, and invitations must name one",
            fix="name it with --address, such as exchange.example.org:7443",
        )


def require_unused(path: Path) -> None:
    """Raise CoordinatorFault if there is a file at the path, which may hold something else."""
    if path.exists():
        raise CoordinatorFault(
            f"The file {path} exists already",
            why="what it holds would be lost",
            fix="name another file, or remove this one first",
        )


def write_new(path: Path, content: bytes) -> None:
    """Write a file durably, readable by its owner only; replace an existing file atomically.

    Raises CoordinatorFault if it cannot be written.
    """
    try:
        replace_private(path, content)
    except OSError as error:
        raise CoordinatorFault(
            f"The file {path} cannot be written",
            why=reason_of(error),
            fix="check that the folder exists, that you may write there, and that the disk has "
            "free space",
        ) from error
