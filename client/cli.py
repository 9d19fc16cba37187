"""`pratique-node`: the commands of a national node's operator."""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from governance.runtime.cli_support import (
    JsonOption,
    LogFileOption,
    PassphraseFd,
    PassphraseFile,
    plain_errors,
    say_at_once,
    show,
)
from governance.runtime.safe_text import shown

if TYPE_CHECKING:
    from client.commands.enrol import Introduction
    from client.home import NodeHome
    from keys.store import KeyStore

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A national node: keeps a country's records, and lets only noisy sums pass.",
)
DEFAULT_HOME = Path.home() / ".pratique" / "node"
HomeOption = Annotated[
    Path,
    typer.Option("--home", envvar="PRATIQUE_HOME", help="The node's folder.", show_default=False),
]
SIGNS = {"good": "ok  ", "soon": "soon", "failed": "FAIL", "skipped": "--  "}


@app.command()
def init(
    country: Annotated[str, typer.Option(help="ISO 3166-1 code of the country, such as DE.")],
    data: Annotated[Path, typer.Option(help="The records: a CSV file, one row per patient.")],
    dictionary: Annotated[Path, typer.Option(help="What its columns mean: a YAML file.")],
    officer_key: Annotated[
        str, typer.Option(help="The country's document key: its text, or the officer's file.")
    ],
    opt_out: Annotated[
        Path | None, typer.Option(help="Patients who opted out: one id a line.")
    ] = None,
    register: Annotated[
        str | None,
        typer.Option(help="Person register of the records; needed where there are several."),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Make a node: read the records once, make its keys, write what its officer signs."""
    from client.commands.init import found  # noqa: PLC0415 (keeps --help quick)
    from client.commands.init import officer_key as read_key  # noqa: PLC0415
    from governance.runtime.passphrases import chosen_passphrase  # noqa: PLC0415

    with plain_errors():
        settings = _new_settings(
            country=country,
            data=data.expanduser().resolve(),
            dictionary=dictionary.expanduser().resolve(),
            opt_out=opt_out.expanduser().resolve() if opt_out else None,
            officer_key=read_key(officer_key).to_text(),
            person_register=register,
        )
        node_home = _home(home)
        node_home.require_free()
        passphrase = chosen_passphrase(passphrase_file, passphrase_fd)
        founded = found(node_home, settings, passphrase, datetime.now(UTC))
        typer.echo(f"The node of {country} is made in {node_home.path}.")
        for line in founded.report.lines():
            typer.echo(f"  {line}")
        typer.echo(f"Pinned officer key: {founded.officer.fingerprint}")
        typer.echo(f"Its public keys are in {node_home.node_keys}: your officer signs them.")
        typer.echo("Next: pratique-node enrol INVITATION")


@app.command()
def enrol(
    invitation: Annotated[Path, typer.Argument(help="File that the coordinator handed over.")],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for approval.")] = 0,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,  # noqa: FBT002 (a flag)
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Join a federation: print a fingerprint to read out, and wait to be let in."""
    from client.commands.enrol import Candidate  # noqa: PLC0415 (keeps --help quick)
    from client.credentials.certificate_renewal import kept_pair  # noqa: PLC0415
    from governance.documents.permit import NodeKeys  # noqa: PLC0415
    from protocols.wire.invitation import read_invitation  # noqa: PLC0415

    with plain_errors():
        node_home = _home(home)
        settings, asked = node_home.settings(), read_invitation(invitation)
        candidate = Candidate(
            home=node_home,
            settings=settings,
            pair=kept_pair(node_home, _unlocked(node_home, passphrase_file, passphrase_fd)),
            keys=NodeKeys.from_canonical(node_home.node_keys.read_bytes()),
            dial=_dial,
            clock=lambda: datetime.now(UTC),
        )
        told: list[Introduction] = []
        admitted = candidate.enrol(
            asked, wait=wait, tell=lambda one: _introduce(one, told, as_json=as_json)
        )
        status = {"status": "admitted" if admitted else "pending"}
        answer = {**status, "fingerprint": told[0].fingerprint}
        show(answer, as_json=as_json, plain=lambda _: _enrolled(admitted, node_home))


def _introduce(one: "Introduction", told: list["Introduction"], *, as_json: bool) -> None:
    told.append(one)
    lines = (
        f"Federation: {one.federation}, exchange at {one.exchange}",
        f"Fingerprint of this request: {one.fingerprint}",
        f"Transport authority: {one.authority_digest}",
        f"Root of the documents: {one.root_digest}",
        (
            "Read the fingerprint out to the coordinator, and let the coordinator read the two "
            "digests out to you: they must be the same."
        ),
    )
    for line in lines:
        typer.echo(line, err=as_json)
    sys.stdout.flush()


def _enrolled(admitted: bool, home: "NodeHome") -> None:  # noqa: FBT001 (an answer, yes or no)
    if admitted:
        typer.echo("The node is let in.")
        typer.echo(f"Next: have your officer sign {home.node_keys}, then pratique-node up")
    else:
        typer.echo("The request waits for approval; run the same command again after it.")


@app.command()
def accept(
    bundle: Annotated[Path, typer.Argument(help="The country's documents, from its officer.")],
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Take the own country's documents from a file; a running daemon has them at once."""
    from client.commands.accept import accept_file  # noqa: PLC0415 (keeps --help quick)

    with plain_errors():
        typer.echo(accept_file(_home(home), bundle, datetime.now(UTC)))


@app.command()
def doctor(
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,  # noqa: FBT002 (a flag)
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Check everything the node needs, and say how to mend what is wrong."""
    from client.commands.doctor import CheckState, Doctor  # noqa: PLC0415 (keeps --help quick)
    from governance.runtime.passphrases import known_passphrase  # noqa: PLC0415
    from protocols.wire.channel import ExchangeLink  # noqa: PLC0415

    with plain_errors():
        looked = Doctor(
            home=_home(home),
            passphrase=lambda: known_passphrase(passphrase_file, passphrase_fd),
            dial=ExchangeLink,
            clock=lambda: datetime.now(UTC),
        )
        findings = []
        for finding in looked.findings():
            findings.append(finding)
            if not as_json:
                typer.echo(shown(f"{SIGNS[finding.state]}  {finding.name}: {finding.says}"))
            if finding.fix and not as_json:
                typer.echo(shown(f"      to do: {finding.fix}"))
        show([f.to_json() for f in findings], as_json=as_json, plain=lambda _: None)
        if any(finding.state is CheckState.FAILED for finding in findings):
            raise typer.Exit(1)


@app.command()
def up(
    home: HomeOption = DEFAULT_HOME,
    log_file: LogFileOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Run the node until it is told to stop; log lines in JSON go to standard error."""
    _isolate()
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")
    with plain_errors():
        node_home = _home(home)
        settings = node_home.settings()
        say_at_once(f"starting the node of {settings.country} in {node_home.path}")
        from client.daemon import run_daemon  # noqa: PLC0415 (takes seconds)
        from governance.runtime.logs import configure, reopen_on_hangup  # noqa: PLC0415

        store = _unlocked(node_home, passphrase_file, passphrase_fd)
        reopen_on_hangup(configure(log_file or settings.log_file))
        run_daemon(node_home, settings, store)


@app.command()
def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:  # noqa: FBT002
    """Say what the node is doing or waiting for, its budget, and what it refused."""
    with plain_errors():
        show(_ask(home, "status"), as_json=as_json, plain=_print_status)


@app.command()
def pause(
    reason: Annotated[str, typer.Option(help="Why, for whoever looks at `status`.")] = "",
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Refuse every message until `resume`; a restart does not undo it."""
    with plain_errors():
        typer.echo(str(_ask(home, "pause", reason=reason)["waiting_for"]))


@app.command()
def resume(home: HomeOption = DEFAULT_HOME) -> None:
    """Take part again after `pause`."""
    with plain_errors():
        typer.echo(str(_ask(home, "resume")["waiting_for"]))


@app.command()
def restored(
    yes: Annotated[bool, typer.Option("--yes", help="Agree beforehand.")] = False,  # noqa: FBT002
    home: HomeOption = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Make a node safe whose folder was put back from a backup: take the worst as spent."""
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")
    with plain_errors():
        node_home = _home(home)
        settings = node_home.settings()
        typer.echo(RESTORED_WARNING)
        if not yes:
            typer.confirm("Go on?", abort=True)
        from client.daemon import restore_node  # noqa: PLC0415 (takes seconds)
        from client.status.text import restored_lines  # noqa: PLC0415

        store = _unlocked(node_home, passphrase_file, passphrase_fd)
        for line in restored_lines(restore_node(node_home, settings, store)):
            typer.echo(line)


RESTORED_WARNING = """\
If you have the newest copy of this node's folder, put that back instead, and leave this alone.
Every run that this node takes part in ends here. Each study that your officer has permitted is
charged in full, unless the ledger knows its charge; for another run, the officer approves it again.
None of it can be undone."""


@app.command("approve-key")
def approve_key(
    country: Annotated[str, typer.Argument(help="Whose key has changed, such as DK.")],
    fingerprint: Annotated[str, typer.Argument(help="As its officer read it out to you.")],
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Accept another country's changed key, which its former key has not signed."""
    with plain_errors():
        found = _ask(home, "approve_key", country=country, fingerprint=fingerprint)
        typer.echo(f"The key {found['fingerprint']} of {found['country']} counts here from now on.")


@app.command("rotate-keys")
def rotate_keys(
    home: HomeOption = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Make a new key for the node's messages, which the one in use signs; the daemon may run."""
    from client.commands.rotate_keys import rotate_keys as rotated  # noqa: PLC0415 (keeps --help quick)
    from keys.composite import read_identity  # noqa: PLC0415

    with plain_errors():
        node_home = _home(home)
        node_home.settings()
        store = _unlocked(node_home, passphrase_file, passphrase_fd)
        keys = rotated(node_home, store, datetime.now(UTC))
        typer.echo(f"New key for messages: {read_identity(keys.identity_key).fingerprint}")
        typer.echo("The node takes it into use once your officer's signature on it is published.")
        typer.echo(f"Next: pratique-officer sign {node_home.node_keys} --node {node_home.path}")


@app.command("officer-key")
def officer_key(
    key: Annotated[str, typer.Argument(help="The officer's new key: its text, or its file.")],
    fingerprint: Annotated[str, typer.Option(help="As your officer read it out to you.")],
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Pin another key of your own officer, whose former key is lost."""
    from client.commands.init import officer_key as read_key  # noqa: PLC0415 (keeps --help quick)

    with plain_errors():
        new = read_key(key)
        _require_fingerprint(new.fingerprint, fingerprint)
        found = _ask(home, "officer_key", key=new.to_text())
        typer.echo(f"Pinned officer key: {found['fingerprint']}")
        typer.echo("Next: your officer hands over the documents signed with it.")


def _require_fingerprint(found: str, said: str) -> None:
    from client.errors import OperationFault  # noqa: PLC0415 (keeps --help quick)

    if found != said:
        raise OperationFault(
            "The key does not have the fingerprint that you were told",
            why=f"its fingerprint is {found}",
            fix="compare it with your officer by voice; nothing was changed",
        )


def _print_status(found: dict[str, Any]) -> None:
    from client.status.text import status_lines  # noqa: PLC0415 (keeps --help quick)

    for line in status_lines(found):
        typer.echo(line)


def _home(path: Path) -> "NodeHome":
    from client.home import NodeHome  # noqa: PLC0415 (keeps --help quick)

    return NodeHome(path.expanduser().resolve())


def _ask(path: Path, method: str, **params: Any) -> Any:
    from governance.runtime.local_rpc import ask  # noqa: PLC0415 (keeps --help quick)

    home = _home(path)
    home.settings()
    return ask(home.socket, method, **params)


def _new_settings(**fields: Any) -> Any:
    from pydantic import ValidationError  # noqa: PLC0415 (keeps --help quick)

    from client.settings import NodeSettings  # noqa: PLC0415

    try:
        return NodeSettings(**fields)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise typer.BadParameter(
            EXPECTED.get(name, error.errors()[0]["msg"]),
            param_hint=f"--{OPTIONS.get(name, name).replace('_', '-')}",
        ) from error


OPTIONS = {"person_register": "register"}
EXPECTED = {
    "country": "a country code of ISO 3166-1 in capitals, such as DE",
    "person_register": "small letters, digits and hyphens, as the agreement names the register",
}


def _unlocked(home: "NodeHome", file: Path | None, fd: int | None) -> "KeyStore":
    from governance.runtime.passphrases import known_passphrase  # noqa: PLC0415
    from keys.store import KeyStore  # noqa: PLC0415

    return KeyStore.open(home.keys, known_passphrase(file, fd))


def _dial(address: str, authority: bytes, key: bytes, certificate: bytes) -> Any:
    from protocols.wire.channel import ExchangeLink  # noqa: PLC0415 (keeps --help quick)

    return ExchangeLink(address, authority=authority, key=key, certificate=certificate)


def _isolate() -> None:
    """Start again without the folder of the script or the caller in Python's path."""
    if not sys.flags.safe_path:
        os.environ["PYTHONSAFEPATH"] = "1"
        os.execv(sys.executable, [sys.executable, "-P", "-m", "client.cli", *sys.argv[1:]])  # noqa: S606 (this program)  # nosec B606


def main() -> None:
    """Run `pratique-node`."""
    app(prog_name="pratique-node")


if __name__ == "__main__":
    main()
