"""`pratique-coordinator agreement`: lay an agreement out for signature and see who has signed."""

from pathlib import Path
from typing import Annotated, Any

import typer

from governance.runtime.cli_support import JsonOption, plain_errors, show
from server.commands.options import DEFAULT_HOME, HomeOption, request
from server.commands.wording import read_text

agreement_app = typer.Typer(no_args_is_help=True, help="The agreement between the countries.")


@agreement_app.command()
def propose(
    file: Annotated[Path, typer.Argument(help="The agreement, YAML.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,  # noqa: FBT002 (a flag)
) -> None:
    """Lay an agreement out for the officers; keys of admitted officers are filled in."""
    with plain_errors():
        text = read_text(file)
        found = request(home, "agreement_propose", text=text, source=file.name)
        show(found, as_json=as_json, plain=_print_status)


@agreement_app.command()
def publish(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:  # noqa: FBT002
    """Put it in force with the signatures there are; without this it waits for every country."""
    with plain_errors():
        show(request(home, "agreement_publish"), as_json=as_json, plain=_print_status)


@agreement_app.command()
def renew(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:  # noqa: FBT002
    """Lay the agreement in force out to be signed again: for another year, and for new keys."""
    with plain_errors():
        show(request(home, "agreement_renew"), as_json=as_json, plain=_print_status)


@agreement_app.command()
def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:  # noqa: FBT002
    """Say who has signed, and whether it is in force."""
    with plain_errors():
        show(request(home, "agreement_status"), as_json=as_json, plain=_print_status)


def _print_status(found: dict[str, Any]) -> None:
    typer.echo(f"Agreement {found['digest'][:19]}…: {found['state']}.")
    if found["state"] == "in force":
        typer.echo(f"  {found['title']}, until {found['sunset'][:10]}")
        typer.echo(f"  parties: {', '.join(found['countries'])}")
        typer.echo(f"  messages are signed with {found['signatures']}")
        typer.echo(f"  the countries' signatures hold until {found['signed_until'][:10]}")
        for country in found["announced"]:
            typer.echo(f"  {country} has a new key: `agreement renew` puts it in force")
        return
    typer.echo(f"  signed:   {', '.join(found['signed']) or 'nobody yet'}")
    typer.echo(f"  not yet:  {', '.join(found['unsigned']) or 'nobody'}")
    if found["needed"]:
        typer.echo(f"  {found['needed']} more signature(s) needed: `pratique-officer sign`")
    else:
        typer.echo(
            "  Enough have signed: it takes force when all have, or with `agreement publish`"
        )
