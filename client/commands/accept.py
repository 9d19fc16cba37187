"""`pratique-node accept`: imports the country's documents from a file, with or without a daemon."""

import base64
from datetime import datetime
from pathlib import Path

from client.errors import NodeFault
from client.home import NodeHome
from governance.runtime.files import write_atomic
from governance.runtime.local_rpc import LocalRpcFault, ask
from governance.trust.bundle import own_country, signer_of
from keys.errors import reason_of
from keys.identity import VerifyKey

LARGEST_FILE = 8 * 2**20


def accept_file(home: NodeHome, file: Path, now: datetime) -> str:
    """Verify a bundle with the pinned key, import it, and return a sentence about the result.

    Raises NodeFault, DocumentFault or LocalRpcFault; then nothing was imported.
    """
    settings, bundle = home.settings(), _read(file)
    signer = signer_of(bundle, settings.country, VerifyKey.from_text(settings.officer_key))
    own = own_country(bundle, settings.country, signer, now)
    note = f" {own.fault}." if own.fault else ""
    if _delivered(home, bundle):
        return (
            f"The running node now has version {own.version}, valid until "
            f"{own.expires:%Y-%m-%d}.{note}"
        )
    write_atomic(home.officer / f"country-{settings.country}-{own.version:010d}.json", bundle)
    waits = f"Version {own.version} waits in {home.officer}; the node imports it when it starts."
    return waits + note


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(LARGEST_FILE)
    except OSError as error:
        raise NodeFault(
            f"The file {file} cannot be read",
            why=reason_of(error),
            fix="name the file that your officer made with --bundle-out",
        ) from None


def _delivered(home: NodeHome, bundle: bytes) -> bool:
    """Return whether a running daemon imported it; raises LocalRpcFault if the daemon refused."""
    try:
        ask(home.socket, "deliver", bundle=base64.b64encode(bundle).decode())
    except LocalRpcFault as fault:
        if isinstance(fault.__cause__, OSError):  # no daemon listens there
            return False
        raise
    return True
