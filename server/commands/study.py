"""`pratique-coordinator study`: from a draft to a finished run."""

from pathlib import Path
from typing import Annotated, Any

import typer

from governance.runtime.cli_support import JsonOption, plain_errors, show
from server.commands.options import DEFAULT_HOME, HomeOption, request
from server.commands.wording import read_text

study_app = typer.Typer(no_args_is_help=True, help="Studies: check, propose, launch, watch.")
FileArgument = Annotated[Path, typer.Argument(help="The study, YAML.")]
NameArgument = Annotated[str, typer.Argument(help="The study's id or digest.")]
LAUNCH_SECONDS = 120.0
WHOSE_NOISE = {
    "shared": "all countries' noise",
    "local": "each country's own noise",
    "derived": "made of what is noised above, at no further cost",
}


@study_app.command()
def check(
    file: FileArgument,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,  # noqa: FBT002 (a flag)
) -> None:
    """Say which clauses would allow or refuse a study, and what each ledger would be charged.

    Ends with status 1 where a country's rules refuse it.
    """
    with plain_errors():
        found = request(home, "study_check", text=read_text(file), source=file.name)
        show(found, as_json=as_json, plain=_print_check)
        if not all(one["allowed"] for one in found["countries"]):
            raise typer.Exit(1)


@study_app.command()
def propose(
    file: FileArgument,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,  # noqa: FBT002
) -> None:
    """Sign a study and lay it before the officers of its countries."""
    with plain_errors():
        found = request(home, "study_propose", text=read_text(file), source=file.name)
        show(found, as_json=as_json, plain=_print_proposed)


@study_app.command("list")
def list_studies(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:  # noqa: FBT002
    """Print every published study, the countries' answers, and how far it is."""
    with plain_errors():
        show(request(home, "study_list"), as_json=as_json, plain=_print_list)


@study_app.command()
def launch(
    name: NameArgument,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,  # noqa: FBT002
) -> None:
    """Start a run, once every country has permitted the study."""
    with plain_errors():
        found = request(home, "study_launch", LAUNCH_SECONDS, name=name)
        show(found, as_json=as_json, plain=_print_launched)


@study_app.command()
def watch(
    name: NameArgument,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,  # noqa: FBT002
) -> None:
    """Follow the newest run of a study to its end; status 1 where it ends without a result."""
    from server.commands.watch import follow  # noqa: PLC0415 (keeps --help quick)

    with plain_errors():
        state = follow(lambda: request(home, "study_status", name=name), as_json=as_json)
        if state != "finished":
            raise typer.Exit(1)


@study_app.command()
def stop(name: NameArgument, home: HomeOption = DEFAULT_HOME) -> None:
    """Stop the running run of a study. What was charged stays charged."""
    with plain_errors():
        found = request(home, "study_stop", name=name)
        typer.echo(f"Stopped: run {found['run']} of {found['study']}. No result is released.")


def _print_check(found: dict[str, Any]) -> None:
    typer.echo(f"{found['title']} ({found['id']})")
    _print_schedule(found["study"])
    typer.echo(f"  messages are signed with {found['signatures']}")
    if found["local_mode"]:
        typer.echo(f"  local mode: {found['local_mode']}")
    for one in found["countries"]:
        _print_country(one)
    for said, countries in _refusals(found["countries"]).items():
        typer.echo(f"  {', '.join(countries)}: {said[0]}")
        typer.echo(f"      To do: {said[1]}")


def _print_schedule(study: dict[str, Any]) -> None:
    privacy = study["privacy"]
    typer.echo(f"  a patient: ε={privacy['epsilon']:g}, δ={privacy['delta']:g}, all told:")
    for one in study["mechanisms"]:
        times = f"{one['rounds']} rounds of " if one["rounds"] > 1 else ""
        size = f"{one['dimension']} value{'s' if one['dimension'] > 1 else ''}"
        typer.echo(f"    {one['phase']:13} {times}{size}, {WHOSE_NOISE[one['scope']]}")


def _print_country(one: dict[str, Any]) -> None:
    verdict = "would allow" if one["allowed"] else "would refuse"
    typer.echo(f"  {one['country']}: {verdict} ({one['answer']})")
    if charge := one["charge"]:
        share = 100 * charge["share_of_period"]
        typer.echo(
            f"      its ledger {charge['register']!r} would be charged {share:.1f} % of a period"
        )


def _refusals(countries: list[dict[str, Any]]) -> dict[tuple[str, str], list[str]]:
    """Return each refusal and what to do about it once, with the countries that give it."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in countries:
        for finding in one["findings"]:
            said = f"{finding['sentence']} [{finding['clause']}]"
            found.setdefault((said, finding["fix"]), []).append(one["country"])
    return found


def _print_proposed(found: dict[str, Any]) -> None:
    typer.echo(f"Proposed: {found['title']} ({found['id']})")
    typer.echo(f"  {found['digest']}")
    typer.echo("  Next: the officers of its countries see it in `pratique-officer inbox`.")


def _print_list(found: list[dict[str, Any]]) -> None:
    if not found:
        typer.echo("No study has been proposed.")
    for one in found:
        answers = ", ".join(f"{country} {said}" for country, said in one["answers"].items())
        typer.echo(f"{one['id']}  {one['task']}  {one['run'] or 'not launched'}")
        typer.echo(f"    {answers}; expires {one['expires'][:10]}")


def _print_launched(found: dict[str, Any]) -> None:
    typer.echo(
        f"Launched: {found['study']}, run {found['run']} (Flower run {found['flower_run']})."
    )
    typer.echo(f"  Next: pratique-coordinator study watch {found['study']}")
