"""The commands `pratique-node opt-out show` and `opt-out confirm`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.options import DEFAULT_HOME, HomeOption, node_home, unlocked
from governance.runtime.cli_support import PassphraseFd, PassphraseFile, plain_errors, say
from keys.clock import utc_now

if TYPE_CHECKING:
    from client.commands.opt_outs import OptOutReview

opt_out_app = typer.Typer(
    no_args_is_help=True, help="Show and confirm entries of the opt-out list that match no patient."
)


@opt_out_app.command("show")
def show_opt_outs(
    home: HomeOption = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """List the entries that match no patient and are not confirmed, with their lines."""
    from client.state.opt_out_confirmations import unconfirmed_sentence  # noqa: PLC0415

    with plain_errors():
        review = _review(home, passphrase_file, passphrase_fd)
        entries = review.unconfirmed()
        say(f"{review.records.report.lines()[0]}.")
        say(f"{unconfirmed_sentence(len(entries))}, and you have not confirmed them.")
        for entry in entries:
            say(f"  {entry.sentence()}")


@opt_out_app.command("confirm")
def confirm_opt_outs(
    entries: Annotated[
        list[str] | None, typer.Argument(help="Entries of people who are no patients here.")
    ] = None,
    number: Annotated[
        int | None,
        typer.Option(min=0, help="For a national list: how many of its entries match nobody."),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Confirm that entries of the list are of people who are no patients of this node."""
    with plain_errors():
        review = _review(home, passphrase_file, passphrase_fd)
        say(f"{review.confirm(entries or [], number, utc_now())}.")


def _review(path: Path, file: Path | None, fd: int | None) -> "OptOutReview":
    from client.commands.opt_outs import OptOutReview  # noqa: PLC0415 (keeps --help quick)

    home = node_home(path)
    return OptOutReview(home, home.settings(), unlocked(home, file, fd))
