"""`pratique-coordinator`: the regional coordinator's commands."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

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
from server.commands.agreement import agreement_app
from server.commands.log import log_app
from server.commands.options import DEFAULT_HOME, HomeOption, request
from server.commands.result import result_app
from server.commands.study import study_app
from server.commands.wording import resumed_words

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The regional coordinator: lets parties in, launches studies, releases results.",
)
app.add_typer(agreement_app, name="agreement")
app.add_typer(study_app, name="study")
app.add_typer(result_app, name="result")
app.add_typer(log_app, name="log")

DISPUTED = "call them; `revoke`, then `invite` again"
SIGNATURES_DAYS = 60
RoleOption = Annotated[str, typer.Option(help="node or officer.")]


@app.command()
def init(
    federation: Annotated[str, typer.Option(help="Short name of the federation.")],
    listen: Annotated[str, typer.Option(help="Where the exchange listens, host:port.")],
    address: Annotated[
        str | None, typer.Option(help="How the parties reach it; the same when left out.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Make a coordinator: its folder, its keys, the federation's transport authority."""
    from pydantic import ValidationError  # noqa: PLC0415 (keeps --help quick)

    from governance.runtime.passphrases import chosen_passphrase  # noqa: PLC0415
    from server.home import CoordinatorHome, Settings, create_home  # noqa: PLC0415

    with plain_errors():
        try:
            settings = Settings(federation=federation, listen=listen, address=address or listen)
        except ValidationError as error:
            field = str(error.errors()[0]["loc"][0])
            raise typer.BadParameter(_EXPECTED[field], param_hint=f"--{field}") from error
        passphrase = chosen_passphrase(passphrase_file, passphrase_fd)
        authority = create_home(CoordinatorHome(home), settings, passphrase, datetime.now(UTC))
        typer.echo(f"The coordinator of {federation} is made in {home}.")
        typer.echo(f"Transport authority: {authority.digest}")
        typer.echo(f"Next: pratique-coordinator up --home {home}")


_EXPECTED = {
    "federation": "small letters, digits and hyphens, such as north-sea",
    "listen": "host and port, such as 127.0.0.1:7443",
    "address": "host and port, such as exchange.example.org:7443",
}


@app.command()
def up(
    home: HomeOption = DEFAULT_HOME,
    log_file: LogFileOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Run the exchange and Flower until stopped. Logs go to standard error as JSON."""
    with plain_errors():
        from server.home import CoordinatorHome  # noqa: PLC0415 (keeps --help quick)

        settings = CoordinatorHome(home).settings()
        say_at_once(f"starting the coordinator of {settings.federation} in {home}")
        from governance.runtime.logs import configure, reopen_on_hangup  # noqa: PLC0415
        from governance.runtime.passphrases import known_passphrase  # noqa: PLC0415 (takes seconds)
        from server.daemon import run_daemon  # noqa: PLC0415

        reopen_on_hangup(configure(log_file or settings.log_file))
        passphrase = known_passphrase(passphrase_file, passphrase_fd)
        run_daemon(
            CoordinatorHome(home),
            passphrase,
            lambda address: say_at_once(f"ready: the exchange is at {address}"),
        )


@app.command()
def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:  # noqa: FBT002 (a flag)
    """Say what the running coordinator sees: nodes, requests, runs."""
    with plain_errors():
        show(request(home, "status"), as_json=as_json, plain=_print_status)


def _print_status(found: dict[str, Any]) -> None:
    typer.echo(f"{found['federation']}, exchange at {found['address']}")
    for country, online in sorted(found["nodes"].items()):
        typer.echo(f"  {country}  node {'connected' if online else 'not connected'}")
    for party in found["disputes"]:
        typer.echo(f"  TWO HOLDERS of the certificate of {party}: {DISPUTED}")
    if found["waiting"]:
        waiting = ", ".join(found["waiting"])
        typer.echo(f"  waiting for your approval: {waiting} (`admit --list`)")
    _print_agreement(found["agreement"])
    for run in found["running"]:
        again = found["resumed"].get(run)
        typer.echo(f"  running: {run}{f' ({resumed_words(again)})' if again else ''}")
    typer.echo(f"  log: {found['log']['size']} entries")
    if found["observe"]:
        typer.echo(f"  metrics and health: http://{found['observe']}/metrics and /health/ready")


def _print_agreement(found: dict[str, Any] | None) -> None:
    """Say what the countries should sign soon: their signatures end, or somebody's key changes."""
    if found is None:
        return
    if "fault" in found:
        typer.echo(f"  AGREEMENT: {found['fault']} (`agreement renew`)")
    elif found["days_left"] <= SIGNATURES_DAYS:
        typer.echo(
            f"  the countries' signatures hold for {found['days_left']} more days: "
            "`agreement renew`, then every officer signs"
        )
    for country in found["announced"]:
        typer.echo(f"  {country} has a new key that waits for signatures (`agreement status`)")


@app.command()
def invite(
    country: Annotated[str, typer.Argument(help="ISO 3166-1 alpha-2, such as DE.")],
    role: RoleOption,
    out: Annotated[Path, typer.Option(help="Where to write the invitation.")],
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Write an invitation for one country's officer or node. Hand it over privately."""
    from server.home import write_new  # noqa: PLC0415 (keeps --help quick)

    with plain_errors():
        made = request(home, "invite", country=country, role=role)
        write_new(out, json.dumps(made, indent=2).encode())
        typer.echo(f"Invitation for the {role} of {country}: {out}")
        typer.echo("Read these to them by another way; they compare:")
        typer.echo(f"  transport authority  {made['authority_digest']}")
        typer.echo(f"  root of trust        {made['root_digest'] or 'none yet: they will sign it'}")


@app.command()
def admit(
    fingerprint: Annotated[
        str | None, typer.Argument(help="What the party read out to you.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show all requests.")] = False,  # noqa: FBT002
    refuse: Annotated[bool, typer.Option("--refuse", help="Turn it away.")] = False,  # noqa: FBT002
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,  # noqa: FBT002
) -> None:
    """Admit a party by the fingerprint that its own command printed."""
    with plain_errors():
        if listed or fingerprint is None:
            show(request(home, "enrolments"), as_json=as_json, plain=_print_enrolments)
        elif refuse:
            request(home, "turn_away", fingerprint=fingerprint)
            typer.echo("Turned away.")
        else:
            one = request(home, "admit", fingerprint=fingerprint)
            show(one, as_json=as_json, plain=_print_admitted)


def _print_enrolments(found: list[dict[str, str]]) -> None:
    if not found:
        typer.echo("Nobody has asked for admission.")
    for one in found:
        disputed = "  TWO HOLDERS of its certificate" if one["disputed"] else ""
        line = f"{one['country']}  {one['role']:8} {one['status']:9} {one['fingerprint']}"
        typer.echo(line + disputed)


def _print_admitted(one: dict[str, str]) -> None:
    typer.echo(f"Admitted: the {one['role']} of {one['country']}.")


@app.command()
def rotate(
    home: HomeOption = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Make new keys for messages, documents and freshness; the countries put them in force."""
    from governance.runtime.passphrases import known_passphrase  # noqa: PLC0415 (keeps --help quick)
    from server.home import CoordinatorHome  # noqa: PLC0415
    from server.key_rotation import announce  # noqa: PLC0415

    with plain_errors():
        folder = CoordinatorHome(home)
        folder.settings()
        made = announce(folder, known_passphrase(passphrase_file, passphrase_fd))
        typer.echo("New keys lie beside those in force:")
        for field, fingerprint in made.items():
            typer.echo(f"  {field.replace('_', ' ')}: {fingerprint}")
        typer.echo("Next: restart `up`, then `agreement renew`, and let every officer sign.")
        typer.echo("Once that is in force, `up` ends, and takes the new keys up when it starts.")


@app.command()
def revoke(
    country: Annotated[str, typer.Argument(help="ISO 3166-1 alpha-2.")],
    role: RoleOption,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Revoke the certificates of a country's officer or node, from the next call on."""
    with plain_errors():
        count = request(home, "revoke", country=country, role=role)
        typer.echo(f"Revoked: {count} certificate(s) of the {role} of {country}.")


def main() -> None:
    """Run the command line."""
    app()
