"""`pratique-coordinator`: the regional coordinator's commands."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from governance.runtime.cli_support import (
    JsonOption,
    LogFileOption,
    PassphraseFd,
    PassphraseFile,
    given_path,
    plain_errors,
    say,
    say_at_once,
    show,
)
from governance.runtime.program import run_program
from governance.runtime.wording import counted
from keys.clock import utc_now
from server.commands.agreement import agreement_app
from server.commands.invitation import invitation_app
from server.commands.log import log_app
from server.commands.options import DEFAULT_HOME, HomeOption, parsed, request
from server.commands.result import result_app
from server.commands.study import study_app
from server.commands.wording import resumed_words

if TYPE_CHECKING:
    from server.answers import AgreementFault, SignatureTerm

app = typer.Typer(
    suggest_commands=False,  # click suggests them, too
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The regional coordinator: admits parties, launches studies, releases results.",
)
app.add_typer(agreement_app, name="agreement")
app.add_typer(study_app, name="study")
app.add_typer(result_app, name="result")
app.add_typer(log_app, name="log")
app.add_typer(invitation_app, name="invitation")

COPIED = (
    "the connected one stays. Call this party: if it copied its folder, it stops the wrong "
    "machine, and you `revoke` its node and `invite` it again; if not, the folder was stolen"
)
DISPUTED = "call this party; `revoke`, then `invite` again"
SIGNATURES_DAYS = 60
"""How many days before the countries' signatures end `status` asks to renew them."""
RoleOption = Annotated[str, typer.Option(help="node or officer.")]


@app.command()
def init(
    federation: Annotated[str, typer.Option(help="Short name of the federation.")],
    listen: Annotated[str, typer.Option(help="Host and port on which the exchange listens.")],
    address: Annotated[
        str | None,
        typer.Option(help="Host and port at which the parties reach it, if not the same."),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Create a coordinator: its folder, its keys, the federation's transport authority."""
    from pydantic import ValidationError  # noqa: PLC0415 (keeps --help quick)

    from governance.runtime.homes import require_room_for_socket  # noqa: PLC0415
    from governance.runtime.passphrases import chosen_passphrase  # noqa: PLC0415
    from server.home import CoordinatorHome, Settings, create_home, require_reachable  # noqa: PLC0415

    with plain_errors():
        try:
            settings = Settings(federation=federation, listen=listen, address=address or listen)
        except ValidationError as error:
            field = str(error.errors()[0]["loc"][0])
            raise typer.BadParameter(_EXPECTED[field], param_hint=f"--{field}") from error
        require_reachable(settings)
        CoordinatorHome(home).require_free()
        require_room_for_socket(home, CoordinatorHome(home).socket)
        passphrase = chosen_passphrase(passphrase_file, passphrase_fd)
        authority = create_home(CoordinatorHome(home), settings, passphrase, utc_now())
        say(f"The coordinator of {federation} was created in {home}.")
        say(f"Transport authority: {authority.digest}")
        say(f"Next: pratique-coordinator up --home {home}")


_EXPECTED = {
    "federation": "small letters, digits and hyphens, such as north-sea",
    "listen": "host and port, such as 127.0.0.1:7443; not port 0, and no dot after the host",
    "address": "host and port, such as exchange.example.org:7443; not port 0, and no dot after the "
    "host",
}


@app.command()
def up(
    home: HomeOption = DEFAULT_HOME,
    log_file: LogFileOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Run the exchange and Flower until stopped; write JSON logs to standard error."""
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
    """Show what the running coordinator sees: nodes, requests, runs."""
    with plain_errors():
        show(request(home, "status"), as_json=as_json, plain=_print_status)


def _print_status(answer: dict[str, Any]) -> None:
    from server.answers import CoordinatorStatus  # noqa: PLC0415 (keeps --help quick)

    status = parsed(CoordinatorStatus, answer)
    say(f"{status.federation}, exchange at {status.address}")
    for country, online in sorted(status.nodes.items()):
        say(f"  {country}  node {'connected' if online else 'not connected'}")
    for party in status.disputes:
        say(f"  TWO HOLDERS of the certificate of {party}: {DISPUTED}")
    for country in status.copies:
        say(f"  TWO MACHINES have the identity of the node of {country}: {COPIED}")
    if status.waiting:
        waiting = ", ".join(status.waiting)
        say(f"  waiting for your approval: {waiting} (`admit --list`)")
    _print_agreement(status.agreement)
    if status.not_renewed:
        say(f"  DOCUMENTS NOT RENEWED, tried again each minute: {status.not_renewed}")
    for run in status.running:
        resumed = status.resumed.get(run)
        say(f"  running: {run}{f' ({resumed_words(resumed)})' if resumed else ''}")
    say(f"  log: {counted(status.log.size, 'entry', 'entries')}")
    if status.observe:
        say(f"  metrics and health: http://{status.observe}/metrics and /health/ready")


def _print_agreement(agreement: "SignatureTerm | AgreementFault | None") -> None:
    """Print what the countries must sign soon, because signatures end or a key changes."""
    from server.answers import AgreementFault  # noqa: PLC0415 (keeps --help quick)

    if agreement is None:
        return
    if isinstance(agreement, AgreementFault):
        say(f"  AGREEMENT: {agreement.fault} (`agreement renew`)")
    elif agreement.days_left <= SIGNATURES_DAYS:
        say(
            f"  the countries' signatures hold for {counted(agreement.days_left, 'more day')}: "
            "`agreement renew`, then every officer signs"
        )
    for country in agreement.announced:
        say(f"  {country} has a new key that waits for signatures (`agreement status`)")


@app.command()
def invite(
    country: Annotated[str, typer.Argument(help="ISO 3166-1 alpha-2, such as DE.")],
    role: RoleOption,
    out: Annotated[
        Path, typer.Option(help="File to write the invitation to.", callback=given_path)
    ],
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Write an invitation for one country's officer or node; hand it over privately."""
    from server.home import require_unused, write_new  # noqa: PLC0415 (keeps --help quick)

    with plain_errors():
        require_unused(out)
        invitation = request(home, "invite", country=country, role=role)
        write_new(out, json.dumps(invitation, indent=2).encode())
        root = invitation["root_digest"] or "none yet: the officers will sign it"
        say(f"Invitation for the {role} of {country}: {out}")
        say("Read these to the party over another channel, for comparison:")
        say(f"  transport authority  {invitation['authority_digest']}")
        say(f"  root of trust        {root}")


@app.command()
def admit(
    fingerprint: Annotated[
        str | None, typer.Argument(help="The fingerprint that the party read out to you.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show all requests.")] = False,  # noqa: FBT002
    refuse: Annotated[bool, typer.Option("--refuse", help="Refuse the request.")] = False,  # noqa: FBT002
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,  # noqa: FBT002
) -> None:
    """Admit a party by the fingerprint that its own command printed."""
    with plain_errors():
        if listed or fingerprint is None:
            show(request(home, "enrolments"), as_json=as_json, plain=_print_enrolments)
        elif refuse:
            request(home, "turn_away", fingerprint=fingerprint)
            say("The request is refused.")
        else:
            admitted = request(home, "admit", fingerprint=fingerprint)
            show(admitted, as_json=as_json, plain=_print_admitted)


def _print_enrolments(answer: list[dict[str, str]]) -> None:
    from server.answers import ListedEnrolment  # noqa: PLC0415 (keeps --help quick)

    if not answer:
        say("Nobody has asked for admission.")
    for party in (parsed(ListedEnrolment, listed) for listed in answer):
        disputed = "  TWO HOLDERS of its certificate" if party.disputed else ""
        line = f"{party.country}  {party.role:8} {party.status:9} {party.fingerprint}"
        say(line + disputed)


def _print_admitted(answer: dict[str, str]) -> None:
    from server.answers import EnrolmentSummary  # noqa: PLC0415 (keeps --help quick)

    admitted = parsed(EnrolmentSummary, answer)
    say(f"Admitted: the {admitted.role} of {admitted.country}.")


@app.command()
def rotate(
    home: HomeOption = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Create new keys for messages, documents and freshness; the countries put them in force."""
    from governance.runtime.passphrases import known_passphrase  # noqa: PLC0415 (keeps --help quick)
    from server.home import CoordinatorHome  # noqa: PLC0415
    from server.key_rotation import make_next_keys  # noqa: PLC0415

    with plain_errors():
        folder = CoordinatorHome(home)
        folder.settings()
        fingerprints = make_next_keys(folder, known_passphrase(passphrase_file, passphrase_fd))
        say("The new keys are stored beside those in force:")
        for field, fingerprint in fingerprints.items():
            say(f"  {field.replace('_', ' ')}: {fingerprint}")
        say("Next: restart `up`, then `agreement renew`, and ask every officer to sign.")
        say("When that agreement is in force, `up` ends; its next start uses the new keys.")


@app.command()
def revoke(
    country: Annotated[str, typer.Argument(help="ISO 3166-1 alpha-2.")],
    role: RoleOption,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Revoke all certificates of a country's officer or node, with immediate effect."""
    with plain_errors():
        count = request(home, "revoke", country=country, role=role)
        say(f"Revoked: {counted(count, 'certificate')} of the {role} of {country}.")


def main() -> None:
    """Run `pratique-coordinator`."""
    run_program(app, "pratique-coordinator")
