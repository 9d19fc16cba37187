"""`pratique-node`: the commands for the operator of a national node."""

import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from client.commands.opt_out_app import opt_out_app
from client.commands.options import DEFAULT_HOME, HomeOption, new_settings
from client.commands.options import node_home as _home
from client.commands.options import unlocked as _unlocked
from client.commands.output import print_enrolment, print_introduction, print_result
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
from governance.runtime.homes import absolute, require_room_for_socket
from governance.runtime.program import run_program
from keys.clock import utc_now

if TYPE_CHECKING:
    from client.commands.enrol import EnrolmentLink, Introduction
    from client.status.model import NodeStatus

app = typer.Typer(
    suggest_commands=False,  # click suggests them, too
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run a national node, which keeps a country's records and sends only noisy sums.",
)
app.add_typer(opt_out_app, name="opt-out")


@app.command()
def init(
    country: Annotated[str, typer.Option(help="ISO 3166-1 code of the country, such as DE.")],
    data: Annotated[
        Path, typer.Option(help="The records: a CSV file, one row per patient.", readable=False)
    ],
    dictionary: Annotated[
        Path,
        typer.Option(
            help="The data dictionary, which explains the columns: a YAML file.", readable=False
        ),
    ],
    officer_key: Annotated[
        str, typer.Option(help="The country's document key: its text, or the officer's file.")
    ],
    opt_out: Annotated[
        Path | None, typer.Option(help="Patients who opted out: one id a line.", readable=False)
    ] = None,
    opt_out_covers: Annotated[
        str | None,
        typer.Option(help="`nation`, if most people on that list are no patients here."),
    ] = None,
    register: Annotated[
        str | None,
        typer.Option(help="Person register of the records; needed if there are several."),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Make a node: check the records, make keys, and write the public keys for its officer."""
    from client.commands.init import create_node, unmatched_note  # noqa: PLC0415 (keeps --help quick)
    from client.commands.init import officer_key as read_key  # noqa: PLC0415
    from client.records.quality_report import EXPORT_AGAIN  # noqa: PLC0415
    from governance.runtime.passphrases import chosen_passphrase  # noqa: PLC0415

    with plain_errors():
        settings = new_settings(
            country=country,
            data=absolute(data),
            dictionary=absolute(dictionary),
            opt_out=absolute(opt_out) if opt_out else None,
            opt_out_covers=opt_out_covers,
            officer_key=read_key(officer_key).to_text(),
            person_register=register,
        )
        node_home = _home(home)
        node_home.require_free()
        require_room_for_socket(node_home.path, node_home.socket)
        passphrase = partial(chosen_passphrase, passphrase_file, passphrase_fd)
        node = create_node(node_home, settings, passphrase, utc_now())
        say(f"The node of {country} was created in {node_home.path}.")
        for line in node.report.lines():
            say(f"  {line}")
        if node.report.warning:
            say(f"Note: {node.report.warning}; {EXPORT_AGAIN}.")
        if node.unmatched:
            say(unmatched_note(node.unmatched))
        say(f"Pinned officer key: {node.officer.fingerprint}")
        say(f"Its public keys are in {node_home.node_keys}: ask your officer to sign them.")
        say("Next: pratique-node enrol INVITATION")


@app.command()
def enrol(
    invitation: Annotated[
        Path, typer.Argument(help="The invitation file from the coordinator.", readable=False)
    ],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for approval.")] = 0,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,  # noqa: FBT002 (a flag)
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Join a federation: print a fingerprint to read out, and wait for admission."""
    from client.commands.enrol import Candidate  # noqa: PLC0415 (keeps --help quick)
    from client.credentials.certificate_renewal import transport_pair  # noqa: PLC0415
    from client.credentials.keyring import NodeKeyring  # noqa: PLC0415
    from governance.documents.permit import NodeKeys  # noqa: PLC0415
    from protocols.wire.invitation import read_invitation  # noqa: PLC0415

    with plain_errors():
        node_home = _home(home)
        settings, letter = node_home.settings(), read_invitation(invitation)
        store = _unlocked(node_home, passphrase_file, passphrase_fd)
        candidate = Candidate(
            home=node_home,
            settings=settings,
            pair=transport_pair(node_home, store),
            keyring=NodeKeyring.load(store),
            keys=NodeKeys.from_canonical(node_home.node_keys.read_bytes()),
            dial=_dial,
            clock=utc_now,
        )
        introductions: list[Introduction] = []

        def introduce(introduction: "Introduction") -> None:
            introductions.append(introduction)
            print_introduction(introduction, as_json=as_json)

        admitted = candidate.enrol(letter, wait=wait, on_introduction=introduce)
        answer = {
            "status": "admitted" if admitted else "pending",
            "fingerprint": introductions[0].fingerprint,
        }
        show(answer, as_json=as_json, plain=lambda _: print_enrolment(admitted, node_home))


@app.command()
def accept(
    bundle: Annotated[
        Path, typer.Argument(help="The country's documents, from its officer.", readable=False)
    ],
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Import your country's documents from a file; a running daemon uses them at once."""
    from client.commands.accept import accept_file  # noqa: PLC0415 (keeps --help quick)

    with plain_errors():
        say(accept_file(_home(home), bundle, utc_now()))


@app.command()
def doctor(
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,  # noqa: FBT002 (a flag)
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Check everything that the node needs, and print how to fix each fault."""
    from client.commands.check_result import CheckState  # noqa: PLC0415 (keeps --help quick)
    from client.commands.doctor import Doctor  # noqa: PLC0415
    from governance.runtime.passphrases import known_passphrase  # noqa: PLC0415
    from protocols.wire.channel import ExchangeLink  # noqa: PLC0415

    with plain_errors():
        checks = Doctor(
            home=_home(home),
            passphrase=lambda: known_passphrase(passphrase_file, passphrase_fd),
            dial=ExchangeLink,
            clock=utc_now,
        )
        results = []
        for result in checks.results():
            results.append(result)
            if not as_json:
                print_result(result)
        show([result.to_json() for result in results], as_json=as_json, plain=lambda _: None)
        if any(result.state is CheckState.FAILED for result in results):
            raise typer.Exit(1)


@app.command()
def up(
    home: HomeOption = DEFAULT_HOME,
    log_file: LogFileOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Run the node until a signal stops it; log lines in JSON go to standard error."""
    _isolate()
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")
    with plain_errors():
        node_home = _home(home)
        settings = node_home.settings()
        say_at_once(f"starting the node of {settings.country} in {node_home.path}")
        from client.startup import run_daemon  # noqa: PLC0415 (takes seconds)
        from governance.runtime.logs import configure, reopen_on_hangup  # noqa: PLC0415

        store = _unlocked(node_home, passphrase_file, passphrase_fd)
        reopen_on_hangup(configure(log_file or settings.log_file))
        run_daemon(node_home, settings, store)


@app.command()
def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:  # noqa: FBT002
    """Show what the node does or waits for, its budget, and its last refusals."""
    with plain_errors():
        status = _node_status(home, "status")
        show(status.to_json(), as_json=as_json, plain=lambda _: _print_status(status))


@app.command()
def pause(
    reason: Annotated[str, typer.Option(help="The reason, which `status` shows.")] = "",
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Refuse every message until `resume`; a restart does not end the pause."""
    with plain_errors():
        say(_node_status(home, "pause", reason=reason).waiting_for)


@app.command()
def resume(home: HomeOption = DEFAULT_HOME) -> None:
    """Resume the work of the node after `pause`."""
    with plain_errors():
        say(_node_status(home, "resume").waiting_for)


@app.command()
def restored(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,  # noqa: FBT002
    home: HomeOption = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Recover a node restored from a backup; assume that all permitted budget was spent."""
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")
    with plain_errors():
        node_home = _home(home)
        settings = node_home.settings()
        settings.require_enrolment()
        from client.status.text import RESTORED_WARNING, restored_lines  # noqa: PLC0415

        for line in RESTORED_WARNING:
            say(line)
        if not yes:
            typer.confirm("Continue?", abort=True)
        from client.startup import restore_node  # noqa: PLC0415 (takes seconds)

        store = _unlocked(node_home, passphrase_file, passphrase_fd)
        for line in restored_lines(restore_node(node_home, settings, store)):
            say(line)


@app.command()
def calibrate(
    result: Annotated[
        Path, typer.Argument(help="The folder of a released result.", readable=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write; by default calibrations/STUDY/calibration.json in the folder.",
            callback=given_path,
            readable=False,
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a calibration.")] = False,  # noqa: FBT002
    home: HomeOption = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Fit a released model to your records, if your officer allows it; the outcome stays here."""
    with plain_errors():
        node_home = _home(home)
        settings = node_home.settings()
        settings.require_enrolment()
        from client.commands.calibration_file import report_lines  # noqa: PLC0415
        from client.startup import calibrate_model  # noqa: PLC0415 (takes seconds)

        store = _unlocked(node_home, passphrase_file, passphrase_fd)
        written = calibrate_model(node_home, settings, store, result, out=out, replace=replace)
        for line in report_lines(written):
            say(line)


@app.command("approve-key")
def approve_key(
    country: Annotated[str, typer.Argument(help="Country whose key has changed, such as DK.")],
    fingerprint: Annotated[
        str, typer.Argument(help="The fingerprint, as its officer read it out to you.")
    ],
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Accept another country's new key, which its former key has not signed."""
    with plain_errors():
        key = _ask(home, "approve_key", country=country, fingerprint=fingerprint)
        say(f"From now on, this node accepts the key {key['fingerprint']} of {country}.")


@app.command("rotate-keys")
def rotate_keys(
    home: HomeOption = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Make a new key for the node's messages, signed by the current one; the daemon may run."""
    from client.commands.rotate_keys import rotate_keys as new_keys  # noqa: PLC0415 (keeps --help quick)
    from keys.composite import read_identity  # noqa: PLC0415

    with plain_errors():
        node_home = _home(home)
        node_home.settings()
        store = _unlocked(node_home, passphrase_file, passphrase_fd)
        keys = new_keys(node_home, store, utc_now())
        say(f"New key for messages: {read_identity(keys.identity_key).fingerprint}")
        say("The node uses it as soon as your officer's signature on it is published.")
        say(f"Next: pratique-officer sign {node_home.node_keys} --node {node_home.path}")


@app.command("officer-key")
def officer_key(
    key: Annotated[str, typer.Argument(help="The officer's new key: its text, or its file.")],
    fingerprint: Annotated[str, typer.Option(help="The fingerprint, as your officer read it out.")],
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Pin a new key of your officer, whose former key is lost."""
    from client.commands.init import officer_key as read_key  # noqa: PLC0415 (keeps --help quick)
    from client.commands.init import require_fingerprint  # noqa: PLC0415

    with plain_errors():
        new = read_key(key)
        require_fingerprint(new, fingerprint)
        pinned = _ask(home, "officer_key", key=new.to_text())
        say(f"Pinned officer key: {pinned['fingerprint']}")
        say("Next: your officer hands over the documents signed with it.")


def _node_status(path: Path, method: str, **params: str) -> "NodeStatus":
    from client.status.model import NodeStatus  # noqa: PLC0415 (keeps --help quick)

    return NodeStatus.from_json(_ask(path, method, **params))


def _print_status(status: "NodeStatus") -> None:
    from client.status.text import status_lines  # noqa: PLC0415 (keeps --help quick)

    for line in status_lines(status):
        say(line)


def _ask(path: Path, method: str, **params: Any) -> Mapping[str, object]:
    from governance.runtime.local_rpc import ask  # noqa: PLC0415 (keeps --help quick)

    home = _home(path)
    home.settings()
    answer: Mapping[str, object] = ask(home.socket, method, **params)
    return answer


def _dial(address: str, authority: bytes, key: bytes, certificate: bytes) -> "EnrolmentLink":
    from protocols.wire.channel import ExchangeLink  # noqa: PLC0415 (keeps --help quick)

    return ExchangeLink(address, authority=authority, key=key, certificate=certificate)


def _isolate() -> None:
    """Restart this program without the folder of the script or of the caller in Python's path."""
    if not sys.flags.safe_path:
        os.environ["PYTHONSAFEPATH"] = "1"
        os.execv(sys.executable, [sys.executable, "-P", "-m", "client.cli", *sys.argv[1:]])  # noqa: S606 (this program)  # nosec B606


def main() -> None:
    """Run `pratique-node`."""
    run_program(app, "pratique-node")


if __name__ == "__main__":
    main()
