"""What every command begins with: an unlocked folder, a terminal, and plain words for faults."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from governance.officer.errors import OfficerFault
from governance.officer.home import OfficerHome, create_home, refuse_second
from governance.officer.link import dial
from governance.officer.office import Office, utc_now
from governance.officer.terminal import Terminal, tell
from governance.passphrases import chosen_passphrase, known_passphrase
from keys.errors import PratiqueError


@contextmanager
def plain_faults() -> Iterator[None]:
    """Print what a person can act on as plain sentences, and end with status 1."""
    try:
        yield
    except PratiqueError as fault:
        tell(fault)
        raise typer.Exit(1) from fault
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        why = (error.strerror or str(error)) + where
        tell(OfficerFault("The computer refused", why=why, fix="free space or allow access"))
        raise typer.Exit(1) from error


@contextmanager
def at_work(
    home: Path, passphrase_file: Path | None, passphrase_fd: int | None, *, as_json: bool
) -> Iterator[Office]:
    """Open the officer's folder for one command."""
    with plain_faults():
        folder = OfficerHome(home)
        folder.settings()
        passphrase = known_passphrase(passphrase_file, passphrase_fd)
        office = Office.open(folder, passphrase, Terminal(as_json=as_json), utc_now, dial)
        try:
            yield office
        finally:
            office.close()


def make_keys(
    home: Path,
    country: str,
    authority: str,
    *,
    passphrase_file: Path | None,
    passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """Make a new officer's folder and say what its key is."""
    with plain_faults():
        folder, terminal = OfficerHome(home), Terminal(as_json=as_json)
        refuse_second(folder)
        passphrase = chosen_passphrase(passphrase_file, passphrase_fd)
        settings = create_home(folder, country, authority, passphrase)
        key = settings.verify_key
        terminal.say(f"The document key of {authority} ({country}) is made in {home}.")
        terminal.facts({"public key": key.to_text(), "fingerprint": key.fingerprint})
        terminal.say(f"Give {folder.key_file} to the operator of your node.")
        terminal.say("Keep a copy of the folder and the passphrase apart: nobody can restore them.")
        terminal.say("Next: `pratique-officer enrol` with the invitation of the coordinator.")
        terminal.answer({"country": country, "key": key.to_text(), "fingerprint": key.fingerprint})
