"""Taking the own country's documents from a file, whether the daemon runs or not."""

import base64
from datetime import datetime
from pathlib import Path

from client.errors import OperationFault
from client.home import NodeHome
from governance.runtime.files import write_atomic
from governance.runtime.local_rpc import LocalRpcFault, ask
from governance.trust.bundle import own_country, signer_of
from keys.identity import VerifyKey

LARGEST_FILE = 8 * 2**20


def accept_file(home: NodeHome, file: Path, now: datetime) -> str:
    """Check a bundle by the pinned key and hand it over; return what became of it.

    Raises OperationFault, DocumentFault or DeskFault; then nothing was taken.
    """
    settings, bundle = home.settings(), _read(file)
    signer = signer_of(bundle, settings.country, VerifyKey.from_text(settings.officer_key))
    own = own_country(bundle, settings.country, signer, now)
    if _delivered(home, bundle):
        return f"The running node has version {own.version}, until {own.expires:%Y-%m-%d}."
    write_atomic(home.officer / f"country-{settings.country}-{own.version:010d}.json", bundle)
    return f"Version {own.version} waits in {home.officer}; the node takes it when it starts."


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(LARGEST_FILE)
    except OSError as error:
        raise OperationFault(
            f"{file} cannot be read",
            why=error.strerror or str(error),
            fix="name the file that the officer made with --bundle-out",
        ) from None


def _delivered(home: NodeHome, bundle: bytes) -> bool:
    """Whether a running daemon took it; raises DeskFault where it refused."""
    try:
        ask(home.socket, "deliver", bundle=base64.b64encode(bundle).decode())
    except LocalRpcFault as fault:
        if isinstance(fault.__cause__, OSError):  # nothing listens there
            return False
        raise
    return True
