"""The node's folder: where its settings, keys, state and socket lie.

`init` writes the settings last: a folder without them is no node, whatever else is in it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from client.errors import OperationFault
from client.settings import NodeSettings
from governance.runtime.files import write_atomic
from keys.permissions import refuse_if_shared

LARGEST_SETTINGS = 64 * 1024


@dataclass(frozen=True)
class NodeHome:
    """Paths of one node's folder, and the settings in it."""

    path: Path

    @property
    def keys(self) -> Path:
        """The key store."""
        return self.path / "keys"

    @property
    def settings_file(self) -> Path:
        """What `init` and `enrol` fixed."""
        return self.path / "node.yaml"

    @property
    def database(self) -> Path:
        """Ledger, log, journal and runs."""
        return self.path / "state.db"

    @property
    def log_head(self) -> Path:
        """How far the log has come of which a reply may have left; in no backup."""
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
        """Certificate of the federation's transport authority."""
        return self.path / "authority.pem"

    @property
    def certificate(self) -> Path:
        """This node's transport certificate."""
        return self.path / "certificate.pem"

    @property
    def request(self) -> Path:
        """The enrolment that waits for approval: the same one is asked about again."""
        return self.path / "enrolment.request"

    @property
    def officer(self) -> Path:
        """Where the officer leaves the country's documents while the daemon is down."""
        return self.path / "officer"

    @property
    def socket(self) -> Path:
        """The daemon's local desk."""
        return self.path / "run" / "node.sock"

    @property
    def lock(self) -> Path:
        """Held by the running daemon."""
        return self.path / "run" / "node.lock"

    def settings(self) -> NodeSettings:
        """Read the settings. Raises OperationFault where there are none, or they are not sound."""
        try:
            refuse_if_shared(self.path, self.path.stat())
            text = self.settings_file.read_text(encoding="utf-8")[:LARGEST_SETTINGS]
            return NodeSettings.model_validate(yaml.safe_load(text))
        except FileNotFoundError:
            raise OperationFault(
                f"There is no node in {self.path}",
                why=f"it holds no {self.settings_file.name}",
                fix="run `pratique-node init`, or name the node's folder with --home",
            ) from None
        except ValidationError as error:
            raise self._unreadable(_first(error)) from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise self._unreadable(str(error).splitlines()[0]) from None

    def write_settings(self, settings: NodeSettings) -> None:
        """Replace the settings, durably."""
        text = yaml.safe_dump(settings.model_dump(mode="json", exclude_none=True), sort_keys=False)
        write_atomic(self.settings_file, text.encode())

    def require_free(self) -> None:
        """Raise OperationFault where a node is in the folder, or an unfinished `init`."""
        if self.keys.exists() and not self.settings_file.exists():
            raise OperationFault(
                f"{self.path} holds keys of a node that was not finished",
                why="an earlier `init` was interrupted",
                fix="remove the folder, or name another one with --home",
            )
        if self.settings_file.exists():
            raise OperationFault(
                f"There is a node in {self.path} already",
                why="a second `init` would lose its keys and its ledger",
                fix="use that node, or name another folder with --home",
            )

    def create(self) -> None:
        """Make the folder, for its owner only. Raises OperationFault where it is taken."""
        self.require_free()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            refuse_if_shared(self.path, self.path.stat())
        except OSError as error:
            raise OperationFault(
                f"{self.path} cannot be used", why=str(error), fix="name another folder"
            ) from None

    def _unreadable(self, why: str) -> OperationFault:
        return OperationFault(
            f"{self.settings_file} cannot be read",
            why=why,
            fix="correct it, or restore it from a backup",
        )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the node's lock; the kernel frees it on any death.

        Raises OperationFault where another daemon holds it.
        """
        self.lock.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise OperationFault(
                f"A daemon of this node is running in {self.path}",
                why="two would charge one ledger and answer one request twice",
                fix="see `pratique-node status`; stop that daemon before starting another",
            ) from None
        finally:
            os.close(descriptor)


def _first(error: ValidationError) -> str:
    part = error.errors()[0]
    return f"{'.'.join(str(step) for step in part['loc'])}: {part['msg']}"


def read_public(path: Path, what: str, fix: str) -> bytes:
    """Return a file that the node wrote earlier. Raises OperationFault where it is not there."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise OperationFault(
            f"{what} cannot be read", why=f"{path}: {error.strerror}", fix=fix
        ) from None
