"""`pratique-officer`: a country's privacy officer reads, decides, signs and checks.

Large modules are imported inside the commands, so that `--help` answers at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from governance.runtime.cli_support import (
    JsonOption,
    LogFileOption,
    PassphraseFd,
    PassphraseFile,
    given_folder,
    given_path,
    home_option,
    plain_errors,
)
from governance.runtime.program import run_program

DEFAULT_HOME = Path("~/.pratique/officer")

app = typer.Typer(
    suggest_commands=False,  # click suggests them, too
    name="pratique-officer",
    help="Decide for your country: read studies, sign or refuse, and check the log.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
log_app = typer.Typer(help="Read and verify an audit log.", no_args_is_help=True)
app.add_typer(log_app, name="log")

Home = Annotated[Path, home_option("Folder of this officer.")]
Yes = Annotated[bool, typer.Option("--yes", help="Sign without asking.")]
Node = Annotated[
    Path | None,
    typer.Option(
        "--node",
        help="Folder of your node; remembered once your documents have reached it.",
        callback=given_folder,
        readable=False,
    ),
]
BundleOut = Annotated[
    Path | None,
    typer.Option(
        "--bundle-out",
        help="Also write the signed documents to this file.",
        callback=given_path,
        readable=False,
    ),
]
LogOfNode = Annotated[
    Path | None,
    typer.Option("--node", help="Folder of a node.", callback=given_folder, readable=False),
]
LogOfCoordinator = Annotated[
    Path | None,
    typer.Option(
        "--coordinator", help="Folder of a coordinator.", callback=given_folder, readable=False
    ),
]
StudyName = Annotated[str, typer.Argument(help="Id or digest of the study.")]
Reason = Annotated[str, typer.Option("--reason", help="The reason, in one plain sentence.")]


@app.command()
def keygen(
    *,
    country: Annotated[str, typer.Option(help="Country code, such as DE.")],
    authority: Annotated[str, typer.Option(help="Name of the authority you sign for.")],
    home: Home = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    json: JsonOption = False,
) -> None:
    """Create your country's document key. Do this once: others know your country by this key."""
    from governance.officer.unlock import make_keys  # noqa: PLC0415 (keeps --help quick)

    make_keys(
        home,
        country,
        authority,
        passphrase_file=passphrase_file,
        passphrase_fd=passphrase_fd,
        as_json=json,
    )


@app.command()
def enrol(
    invitation: Annotated[
        Path, typer.Argument(help="Invitation file from the coordinator.", readable=False)
    ],
    *,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the admission.")] = 0.0,
    home: Home = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    json: JsonOption = False,
) -> None:
    """Ask the coordinator's exchange for admission."""
    from governance.officer import enrolment  # noqa: PLC0415 (keeps --help quick)
    from governance.officer.unlock import open_session  # noqa: PLC0415

    with open_session(home, passphrase_file, passphrase_fd, as_json=json) as session:
        enrolment.enrol(session, invitation, wait=wait)


@app.command()
def inbox(
    *,
    home: Home = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    json: JsonOption = False,
) -> None:
    """List what you should decide or do, most urgent first."""
    from governance.officer.commands_read import show_inbox  # noqa: PLC0415
    from governance.officer.unlock import open_session  # noqa: PLC0415 (keeps --help quick)

    with open_session(home, passphrase_file, passphrase_fd, as_json=json) as session:
        show_inbox(session)


@app.command()
def sign(
    file: Annotated[
        Path | None,
        typer.Argument(help="Node keys (.json) or national policy (.cedar).", readable=False),
    ] = None,
    *,
    lost_key: Annotated[
        list[str] | None,
        typer.Option(help="A country whose former key is lost, as its officer confirmed by voice."),
    ] = None,
    yes: Yes = False,
    node: Node = None,
    bundle_out: BundleOut = None,
    home: Home = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    json: JsonOption = False,
) -> None:
    """Sign the draft agreement at the exchange, or a file of your country."""
    from governance.officer.commands_sign import sign_file, sign_waiting_draft  # noqa: PLC0415
    from governance.officer.delivery import Delivery  # noqa: PLC0415 (keeps --help quick)
    from governance.officer.unlock import open_session  # noqa: PLC0415

    with open_session(home, passphrase_file, passphrase_fd, as_json=json) as session:
        if file is None:
            sign_waiting_draft(session, lost_keys=lost_key or (), yes=yes)
        else:
            sign_file(session, file, Delivery(node, bundle_out), yes=yes)


@app.command()
def show(
    study: StudyName,
    *,
    home: Home = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    json: JsonOption = False,
) -> None:
    """Explain a study in plain words: who asks what, why, at what cost, for whom."""
    from governance.officer.commands_read import show_study  # noqa: PLC0415
    from governance.officer.unlock import open_session  # noqa: PLC0415 (keeps --help quick)

    with open_session(home, passphrase_file, passphrase_fd, as_json=json) as session:
        show_study(session, study)


@app.command()
def approve(
    study: StudyName,
    *,
    features: Annotated[
        str | None, typer.Option(help="Allow these features only, separated by commas.")
    ] = None,
    epsilon_at_most: Annotated[float | None, typer.Option(help="Allow at most this ε.")] = None,
    expires: Annotated[
        str | None, typer.Option(help="Last day, such as 2027-03-31; by default the study's.")
    ] = None,
    minimum_countries: Annotated[
        int | None,
        typer.Option(
            help="Allow no run and no sum over fewer countries; by default what `show` says."
        ),
    ] = None,
    by_country: Annotated[
        bool,
        typer.Option(
            "--by-country",
            help="Allow that your country's own sum is visible, with noise only; for studies that "
            "ask for it.",
        ),
    ] = False,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Allow your node to calibrate the released model on its own records; the outcome "
            "stays on the node.",
        ),
    ] = False,
    sentence: Annotated[
        str | None, typer.Option(help="A sentence of yours, stored in the permit.")
    ] = None,
    reconsider: Annotated[
        bool, typer.Option("--reconsider", help="Replace your earlier decision.")
    ] = False,
    yes: Yes = False,
    node: Node = None,
    bundle_out: BundleOut = None,
    home: Home = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    json: JsonOption = False,
) -> None:
    """Permit a study, with conditions if you give any."""
    from governance.officer import commands_decide  # noqa: PLC0415 (keeps --help quick)
    from governance.officer.decision_rules import Conditions  # noqa: PLC0415
    from governance.officer.delivery import Delivery  # noqa: PLC0415
    from governance.officer.unlock import open_session  # noqa: PLC0415

    conditions = Conditions(
        features, epsilon_at_most, expires, sentence, minimum_countries, by_country, calibrate
    )
    delivery = Delivery(node, bundle_out)
    with open_session(home, passphrase_file, passphrase_fd, as_json=json) as session:
        commands_decide.approve(
            session, study, conditions, delivery, reconsider=reconsider, yes=yes
        )


@app.command()
def refuse(
    study: StudyName,
    *,
    reason: Reason,
    yes: Yes = False,
    node: Node = None,
    bundle_out: BundleOut = None,
    home: Home = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    json: JsonOption = False,
) -> None:
    """Refuse a study that you have not permitted."""
    from governance.officer import commands_decide  # noqa: PLC0415 (keeps --help quick)
    from governance.officer.delivery import Delivery  # noqa: PLC0415
    from governance.officer.unlock import open_session  # noqa: PLC0415

    with open_session(home, passphrase_file, passphrase_fd, as_json=json) as session:
        commands_decide.refuse(session, study, reason, Delivery(node, bundle_out), yes=yes)


@app.command()
def withdraw(
    study: StudyName,
    *,
    reason: Reason,
    yes: Yes = False,
    node: Node = None,
    bundle_out: BundleOut = None,
    home: Home = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    json: JsonOption = False,
) -> None:
    """Withdraw a permit. Your node stops at once, even if the exchange cannot be reached."""
    from governance.officer import commands_decide  # noqa: PLC0415 (keeps --help quick)
    from governance.officer.delivery import Delivery  # noqa: PLC0415
    from governance.officer.unlock import open_session  # noqa: PLC0415

    with open_session(home, passphrase_file, passphrase_fd, as_json=json) as session:
        commands_decide.withdraw(session, study, reason, Delivery(node, bundle_out), yes=yes)


@app.command()
def renew(
    *,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="If your folder is an old copy: take over what you signed later. Asks first.",
        ),
    ] = False,
    node: Node = None,
    bundle_out: BundleOut = None,
    home: Home = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    json: JsonOption = False,
) -> None:
    """Sign your country's documents again, unchanged, for another seven days."""
    from governance.officer import commands_sign, folder_recovery  # noqa: PLC0415 (keeps --help quick)
    from governance.officer.delivery import Delivery  # noqa: PLC0415
    from governance.officer.unlock import open_session  # noqa: PLC0415

    sign_again = folder_recovery.renew_taking_over if take_over else commands_sign.renew
    with open_session(home, passphrase_file, passphrase_fd, as_json=json) as session:
        sign_again(session, Delivery(node, bundle_out))


@app.command()
def rotate(
    *,
    yes: Yes = False,
    node: Node = None,
    bundle_out: BundleOut = None,
    home: Home = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    json: JsonOption = False,
) -> None:
    """Create a new document key, signed by the current one. If run again, deliver it again."""
    from governance.officer.delivery import Delivery  # noqa: PLC0415 (keeps --help quick)
    from governance.officer.key_rotation import rotate as rotate_key  # noqa: PLC0415
    from governance.officer.unlock import open_session  # noqa: PLC0415

    with open_session(home, passphrase_file, passphrase_fd, as_json=json) as session:
        rotate_key(session, Delivery(node, bundle_out), yes=yes)


@app.command()
def agent(
    *,
    observe: Annotated[
        str | None, typer.Option(help="Show metrics and health here, such as 127.0.0.1:9103.")
    ] = None,
    log_file: LogFileOption = None,
    home: Home = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Run as a service that signs your country's documents again each day. It decides nothing."""
    from governance.officer.agent_service import run_agent  # noqa: PLC0415
    from governance.runtime.passphrases import known_passphrase  # noqa: PLC0415

    with plain_errors():
        passphrase = known_passphrase(passphrase_file, passphrase_fd)
        run_agent(home, passphrase, observe=observe, log_file=log_file)


@log_app.command("list")
def log_list(
    *,
    node: LogOfNode = None,
    coordinator: LogOfCoordinator = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only this many, the newest.")] = None,
    home: Home = DEFAULT_HOME,
    json: JsonOption = False,
) -> None:
    """List the audit log of a daemon on this machine."""
    from governance.officer import logs  # noqa: PLC0415 (keeps --help quick)
    from governance.officer.home import OfficerHome  # noqa: PLC0415
    from governance.officer.terminal import Terminal  # noqa: PLC0415

    with plain_errors():
        source = logs.source_of(OfficerHome(home), node, coordinator)
        logs.list_log(source, Terminal(as_json=json), last=last)


@log_app.command("verify")
def log_verify(
    *,
    node: LogOfNode = None,
    coordinator: LogOfCoordinator = None,
    accept_restored: Annotated[
        bool,
        typer.Option(
            "--accept-restored", help="Accept missing entries of a node that was restored."
        ),
    ] = False,
    home: Home = DEFAULT_HOME,
    json: JsonOption = False,
) -> None:
    """Check that a log is whole, unchanged, and continues what you verified before."""
    from governance.officer import logs  # noqa: PLC0415 (keeps --help quick)
    from governance.officer.home import OfficerHome  # noqa: PLC0415
    from governance.officer.terminal import Terminal  # noqa: PLC0415
    from keys.clock import utc_now  # noqa: PLC0415

    with plain_errors():
        folder = OfficerHome(home)
        source = logs.source_of(folder, node, coordinator)
        terminal = Terminal(as_json=json)
        logs.verify_log(folder, source, terminal, utc_now(), accept_restored=accept_restored)


def main() -> None:
    """Run `pratique-officer`."""
    run_program(app, "pratique-officer")
