"""`pratique-coordinator agreement`: propose, publish and renew the agreement; show who signed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from governance.runtime.cli_support import JsonOption, plain_errors, say, show
from governance.runtime.safe_text import quoted
from governance.runtime.wording import counted
from server.commands.options import DEFAULT_HOME, HomeOption, parsed, request
from server.commands.wording import read_text

if TYPE_CHECKING:
    from server.answers import AgreementDraft, AgreementInForce

agreement_app = typer.Typer(no_args_is_help=True, help="The agreement between the countries.")


@agreement_app.command()
def propose(
    file: Annotated[Path, typer.Argument(help="The agreement, YAML.", readable=False)],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,  # noqa: FBT002 (a flag)
) -> None:
    """Propose an agreement to the officers; the keys of admitted officers are filled in."""
    with plain_errors():
        text = read_text(file)
        answer = request(home, "agreement_propose", text=text, source=file.name)
        show(answer, as_json=as_json, plain=_print_status)


@agreement_app.command()
def publish(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:  # noqa: FBT002
    """Publish the draft with the signatures it has, without waiting for every country."""
    with plain_errors():
        show(request(home, "agreement_publish"), as_json=as_json, plain=_print_status)


@agreement_app.command()
def renew(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:  # noqa: FBT002
    """Ask for new signatures on the agreement in force: for another year, and for new keys."""
    with plain_errors():
        show(request(home, "agreement_renew"), as_json=as_json, plain=_print_status)


@agreement_app.command()
def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:  # noqa: FBT002
    """Show who has signed, and whether the agreement is in force."""
    with plain_errors():
        show(request(home, "agreement_status"), as_json=as_json, plain=_print_status)


def _print_status(answer: dict[str, Any]) -> None:
    from server.answers import AgreementDraft, AgreementInForce  # noqa: PLC0415 (keeps --help quick)

    say(f"Agreement {answer['digest'][:19]}…: {answer['state']}.")
    if answer["state"] == "in force":
        _print_in_force(parsed(AgreementInForce, answer))
    else:
        _print_draft(parsed(AgreementDraft, answer))


def _print_in_force(agreement: "AgreementInForce") -> None:
    say(f"  {quoted(agreement.title)}, until {agreement.sunset[:10]}")
    say(f"  parties: {', '.join(agreement.countries)}")
    say(f"  messages are signed with {agreement.signatures}")
    say(f"  the countries' signatures hold until {agreement.signed_until[:10]}")
    for country in agreement.announced:
        say(f"  {country} has a new key: `agreement renew` puts it in force")


def _print_draft(draft: "AgreementDraft") -> None:
    say(f"  signed:   {', '.join(draft.signed) or 'nobody yet'}")
    say(f"  not yet:  {', '.join(draft.unsigned) or 'nobody'}")
    if draft.needed:
        needs = "is" if draft.needed == 1 else "are"
        more = counted(draft.needed, "more signature")
        say(f"  {more} {needs} needed: `pratique-officer sign`")
    else:
        say(
            "  Enough countries have signed: the agreement comes into force when all have signed, "
            "or with `agreement publish`"
        )
