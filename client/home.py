"""The folder of a node: the paths of its settings, keys, state and socket.

A folder without settings is not a node, whatever else it contains.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.errors import NodeFault
from client.settings import NodeSettings
from governance.documents.reading import read_settings
from governance.documents.yaml_text import dump_yaml
from governance.runtime.files import write_atomic
from governance.runtime.homes import is_unfinished
from keys.errors import reason_of
from keys.permissions import refuse_if_shared

LARGEST_SETTINGS = 64 * 1024


@dataclass(frozen=True)
class NodeHome:
    """The paths in the folder of one node, and its settings."""

    path: Path

    @property
    def keys(self) -> Path:
        """The key store."""
        return self.path / "keys"

    @property
    def settings_file(self) -> Path:
        """The settings that `init` and `enrol` wrote."""
        return self.path / "node.yaml"

    @property
    def database(self) -> Path:
        """The database with ledger, log, journal and runs."""
        return self.path / "state.db"

    @property
    def log_head(self) -> Path:
        """The head of the log at the last reply; it must not be in any backup."""
        return self.path / "log-head"

    @property
    def node_keys(self) -> Path:
        """The node's public keys, for its officer to sign."""
        return self.path / "node-keys.json"

    @property
    def root(self) -> Path:
        """The TUF root that everything else is verified from."""
        return self.path / "root.json"

    @property
    def authority(self) -> Path:
        """The certificate of the federation's transport authority."""
        return self.path / "authority.pem"

    @property
    def certificate(self) -> Path:
        """The transport certificate of this node."""
        return self.path / "certificate.pem"

    @property
    def request(self) -> Path:
        """The enrolment request that waits for approval; it is sent again unchanged."""
        return self.path / "enrolment.request"

    @property
    def officer(self) -> Path:
        """The folder in which the officer leaves documents while the daemon does not run."""
        return self.path / "officer"

    @property
    def calibrations(self) -> Path:
        """The folder of calibrations of released models, by study: not private, and never sent."""
        return self.path / "calibrations"

    @property
    def socket(self) -> Path:
        """The local socket of the daemon."""
        return self.path / "run" / "node.sock"

    @property
    def lock(self) -> Path:
        """The lock file of the running daemon."""
        return self.path / "run" / "node.lock"

    def settings(self) -> NodeSettings:
        """Read the settings. Raises NodeFault if there are none, or if they are invalid."""
        try:
            refuse_if_shared(self.path, self.path.stat())
            return read_settings(NodeSettings, self.settings_file, largest=LARGEST_SETTINGS)
        except FileNotFoundError:
            raise NodeFault(
                f"There is no node in {self.path}",
                why=f"the folder contains no {self.settings_file.name}",
                fix="run `pratique-node init`, or name the node's folder with --home",
            ) from None
        except (OSError, ValueError) as error:
            raise self._unreadable(reason_of(error)) from None

    def write_settings(self, settings: NodeSettings) -> None:
        """Replace the settings, durably."""
        values = settings.model_dump(mode="json", exclude_none=True)
        write_atomic(self.settings_file, dump_yaml(values))

    def require_free(self) -> None:
        """Raise NodeFault if the folder contains a node, or keys."""
        if self.settings_file.exists():
            raise NodeFault(
                f"There is already a node in {self.path}",
                why="a second `init` would destroy its keys and its ledger",
                fix="use that node, or name another folder with --home",
            )
        if self.keys.exists() and not is_unfinished(self.path):
            raise NodeFault(
                f"The folder {self.path} contains the keys of a node, and no settings",
                why=f"{self.settings_file.name} was deleted, or an `init` of an earlier version "
                "was interrupted",
                fix="restore the file from a backup, or name another folder with --home",
            )

    def _unreadable(self, why: str) -> NodeFault:
        return NodeFault(
            f"The file {self.settings_file} cannot be read",
            why=why,
            fix="correct it, or restore it from a backup",
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the node's lock; the kernel releases it when the process ends for any reason.

        Raises NodeFault if another process holds it.
        """
        self.lock.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise NodeFault(
                f"A daemon of this node is running in {self.path}",
                why="two daemons would charge one ledger, and answer one request twice",
                fix="run `pratique-node status`; stop that daemon before you start another one",
            ) from None
        finally:
            os.close(descriptor)


def read_public(path: Path, what: str, fix: str) -> bytes:
    """Return the contents of a file of the node. Raises NodeFault if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise NodeFault(
            f"{what} cannot be read", why=f"the file {path}: {reason_of(error)}", fix=fix
        ) from None
