"""`pratique-coordinator invitation`: list and revoke invitations."""

from typing import Annotated

import typer

from governance.runtime.cli_support import JsonOption, plain_errors, say, show
from server.commands.options import DEFAULT_HOME, HomeOption, parsed, request

invitation_app = typer.Typer(
    no_args_is_help=True, help="Invitations: which exist, and which are no longer valid."
)


@invitation_app.command("list")
def list_invitations(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:  # noqa: FBT002 (a flag)
    """Show every invitation with its id, oldest first."""
    with plain_errors():
        show(request(home, "invitations"), as_json=as_json, plain=_print_invitations)


def _print_invitations(answer: list[dict[str, str]]) -> None:
    from server.answers import ListedInvitation  # noqa: PLC0415 (keeps --help quick)

    if not answer:
        say("Nobody was invited.")
    for invitation in (parsed(ListedInvitation, listed) for listed in answer):
        say(
            f"{invitation.id}  {invitation.country}  {invitation.role:8} {invitation.status:8} "
            f"until {invitation.expires[:10]}"
        )


@invitation_app.command()
def revoke(
    identifier: Annotated[
        str, typer.Argument(metavar="ID", help="The id that `invitation list` shows.")
    ],
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Revoke an invitation, with immediate effect; a party that used it stays admitted."""
    from server.answers import ListedInvitation  # noqa: PLC0415 (keeps --help quick)

    with plain_errors():
        answer = request(home, "revoke_invitation", identifier=identifier)
        revoked = parsed(ListedInvitation, answer)
        say(f"Revoked: the invitation {revoked.id} for the {revoked.role} of {revoked.country}.")
