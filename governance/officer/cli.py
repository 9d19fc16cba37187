"""`pratique-officer`: a country's privacy officer reads, decides, signs and checks.

Nothing heavy is imported before a command is known, so that `--help` answers at once.
"""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_HOME = Path.home() / ".pratique" / "officer"

app = typer.Typer(
    name="pratique-officer",
    help="Decide for your country: read what is asked, sign or refuse, and check the log.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
log_app = typer.Typer(help="Read and verify an audit log.", no_args_is_help=True)
app.add_typer(log_app, name="log")

Home = Annotated[
    Path, typer.Option("--home", envvar="PRATIQUE_HOME", help="Folder of this officer.")
]
PassphraseFile = Annotated[
    Path | None, typer.Option(help="File that holds the passphrase; only you may read it.")
]
PassphraseFd = Annotated[
    int | None, typer.Option(help="Number of an open file descriptor to read it from.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value for a machine.")]
Yes = Annotated[bool, typer.Option("--yes", help="Sign without asking.")]
Node = Annotated[
    Path | None, typer.Option("--node", help="Folder of your own node; remembered once given.")
]
BundleOut = Annotated[
    Path | None,
    typer.Option("--bundle-out", help="Also write the signed documents to this file."),
]
StudyName = Annotated[str, typer.Argument(help="Id or digest of the study.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, in one plain sentence.")]


@app.command()
def keygen(
    *,
    country: Annotated[str, typer.Option(help="Country code, such as DE.")],
    authority: Annotated[str, typer.Option(help="Name of the authority you sign for.")],
    home: Home = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    json: Json = False,
) -> None:
    """Make your country's document key. Once: it is who your country is to the others."""
    raise NotImplementedError


@app.command()
def enrol(
    invitation: Annotated[Path, typer.Argument(help="File that the coordinator handed you.")],
    *,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the admission.")] = 0.0,
    home: Home = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    json: Json = False,
) -> None:
    """Ask the coordinator's exchange to let you in."""
    raise NotImplementedError


@app.command()
def inbox(
    *,
    home: Home = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    json: Json = False,
) -> None:
    """List what waits for you, most urgent first."""
    raise NotImplementedError


@app.command()
def sign(
    file: Annotated[
        Path | None, typer.Argument(help="Node keys (.json) or national policy (.cedar).")
    ] = None,
    *,
    yes: Yes = False,
    node: Node = None,
    bundle_out: BundleOut = None,
    home: Home = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    json: Json = False,
) -> None:
    """Sign the agreement that waits at the exchange, or a file of your own country."""
    raise NotImplementedError


@app.command()
def show(
    study: StudyName,
    *,
    home: Home = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    json: Json = False,
) -> None:
    """Explain a study in plain words: who asks what, why, at what cost, for whom."""
    raise NotImplementedError


@app.command()
def approve(
    study: StudyName,
    *,
    features: Annotated[
        str | None, typer.Option(help="Allow these features only, separated by commas.")
    ] = None,
    epsilon_at_most: Annotated[float | None, typer.Option(help="Allow at most this ε.")] = None,
    expires: Annotated[
        str | None, typer.Option(help="Last day, such as 2027-03-31; else the study's own.")
    ] = None,
    sentence: Annotated[str | None, typer.Option(help="Your words, kept in the permit.")] = None,
    reconsider: Annotated[
        bool, typer.Option("--reconsider", help="Replace the decision you took before.")
    ] = False,
    yes: Yes = False,
    node: Node = None,
    bundle_out: BundleOut = None,
    home: Home = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    json: Json = False,
) -> None:
    """Permit a study, with conditions if you give any."""
    raise NotImplementedError


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
    json: Json = False,
) -> None:
    """Refuse a study that you have not permitted."""
    raise NotImplementedError


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
    json: Json = False,
) -> None:
    """Take a permit back. Your node stops at once, with or without the exchange."""
    raise NotImplementedError


@app.command()
def renew(
    *,
    node: Node = None,
    bundle_out: BundleOut = None,
    home: Home = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    json: Json = False,
) -> None:
    """Sign your country's documents again as they stand, for another seven days."""
    raise NotImplementedError


@log_app.command("list")
def log_list(
    *,
    node: Annotated[Path | None, typer.Option("--node", help="Folder of a node.")] = None,
    coordinator: Annotated[
        Path | None, typer.Option("--coordinator", help="Folder of a coordinator.")
    ] = None,
    last: Annotated[int | None, typer.Option(min=1, help="The newest so many only.")] = None,
    home: Home = DEFAULT_HOME,
    json: Json = False,
) -> None:
    """List what a daemon on this machine has logged."""
    raise NotImplementedError


@log_app.command("verify")
def log_verify(
    *,
    node: Annotated[Path | None, typer.Option("--node", help="Folder of a node.")] = None,
    coordinator: Annotated[
        Path | None, typer.Option("--coordinator", help="Folder of a coordinator.")
    ] = None,
    home: Home = DEFAULT_HOME,
    json: Json = False,
) -> None:
    """Check that a log is whole, unchanged, and continues what you saw before."""
    raise NotImplementedError


def main() -> None:
    """Run `pratique-officer`."""
    app()
