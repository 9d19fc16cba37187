"""Open the officer's folder for a command, and print faults in plain words."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from governance.officer.exchange_link import dial
from governance.officer.home import OfficerHome, create_home
from governance.officer.session import OfficerSession
from governance.officer.terminal import Terminal
from governance.runtime.cli_support import plain_errors
from governance.runtime.passphrases import chosen_passphrase, known_passphrase
from keys.clock import utc_now


@contextmanager
def open_session(
    home: Path, passphrase_file: Path | None, passphrase_fd: int | None, *, as_json: bool
) -> Iterator[OfficerSession]:
    """Open the officer's folder for one command."""
    with plain_errors():
        folder = OfficerHome(home)
        folder.settings()
        passphrase = known_passphrase(passphrase_file, passphrase_fd)
        session = OfficerSession.open(folder, passphrase, Terminal(as_json=as_json), utc_now, dial)
        try:
            yield session
        finally:
            session.close()


def make_keys(
    home: Path,
    country: str,
    authority: str,
    *,
    passphrase_file: Path | None,
    passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """Create a new officer's folder and print its public key."""
    with plain_errors():
        folder, terminal = OfficerHome(home), Terminal(as_json=as_json)
        passphrase = partial(chosen_passphrase, passphrase_file, passphrase_fd)
        settings = create_home(folder, country, authority, passphrase)
        key = settings.verify_key
        terminal.say(f"The document key of {authority} ({country}) was created in {home}.")
        terminal.facts({"public key": key.to_text(), "fingerprint": key.fingerprint})
        terminal.say(f"Give {folder.key_file} to the operator of your node.")
        terminal.say("Keep copies of folder and passphrase, apart: nobody else can restore them.")
        terminal.say("Next: `pratique-officer enrol` with the invitation of the coordinator.")
        terminal.answer({"country": country, "key": key.to_text(), "fingerprint": key.fingerprint})
