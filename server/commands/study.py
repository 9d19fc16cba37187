"""`pratique-coordinator study`: from a draft to a finished run."""

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from governance.runtime.cli_support import JsonOption, plain_errors, say, show
from governance.runtime.safe_text import named, quoted
from governance.runtime.wording import counted, exact, percent, rounded_up, without_country
from keys.errors import TO_DO
from server.commands.options import DEFAULT_HOME, HomeOption, parsed, request
from server.commands.wording import read_text

if TYPE_CHECKING:
    from server.answers import CohortCharge, CountryAnswer, ScheduledRelease, StudySchedule

study_app = typer.Typer(no_args_is_help=True, help="Studies: check, propose, launch, watch.")
FileArgument = Annotated[Path, typer.Argument(help="The study, YAML.", readable=False)]
NameArgument = Annotated[str, typer.Argument(help="The study's id or digest.")]
LAUNCH_SECONDS = 120.0
WHOSE_NOISE = {
    "shared": "all countries' noise",
    "local": "each country's own noise",
    "derived": "computed from the noisy values above, at no further cost",
}


@study_app.command()
def check(
    file: FileArgument,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,  # noqa: FBT002 (a flag)
) -> None:
    """Show which clauses would allow or refuse a study, and what each ledger would be charged.

    Exits with status 1 if a country's rules refuse it.
    """
    with plain_errors():
        answer = request(home, "study_check", text=read_text(file), source=file.name)
        show(answer, as_json=as_json, plain=_print_check)
        if not all(country["allowed"] for country in answer["countries"]):
            raise typer.Exit(1)


@study_app.command()
def propose(
    file: FileArgument,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,  # noqa: FBT002
) -> None:
    """Sign a study and publish it to the officers of its countries."""
    with plain_errors():
        answer = request(home, "study_propose", text=read_text(file), source=file.name)
        show(answer, as_json=as_json, plain=_print_proposed)


@study_app.command("list")
def list_studies(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:  # noqa: FBT002
    """Print every published study, the countries' answers, and the state of its newest run."""
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
        answer = request(home, "study_launch", LAUNCH_SECONDS, name=name)
        show(answer, as_json=as_json, plain=_print_launched)


@study_app.command()
def watch(
    name: NameArgument,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,  # noqa: FBT002
) -> None:
    """Follow the newest run of a study to its end; exit with 1 if it ends without a result."""
    from server.commands.watch import follow  # noqa: PLC0415 (keeps --help quick)

    with plain_errors():
        state = follow(lambda: request(home, "study_status", name=name), as_json=as_json)
        if state != "finished":
            raise typer.Exit(1)


@study_app.command()
def stop(name: NameArgument, home: HomeOption = DEFAULT_HOME) -> None:
    """Stop the running run of a study. What was charged stays charged."""
    from server.answers import StoppedRun  # noqa: PLC0415 (keeps --help quick)

    with plain_errors():
        stopped = parsed(StoppedRun, request(home, "study_stop", name=name))
        say(f"Stopped: run {stopped.run} of {stopped.study}. No result is released.")


def _print_check(answer: dict[str, Any]) -> None:
    from server.answers import CheckedStudy, StudySchedule  # noqa: PLC0415 (keeps --help quick)

    checked = parsed(CheckedStudy, answer)
    say(f"{checked.id}: {quoted(checked.title)}")
    _print_schedule(parsed(StudySchedule, checked.study), checked.cohort_count)
    _print_chosen(checked.chosen)
    say(f"  messages are signed with {checked.signatures}")
    if checked.local_mode:
        say(f"  local mode: {checked.local_mode}")
    if checked.by_country:
        say("  by country: each country's own sum is visible, with noise only")
        say("      the agreement and every permit must allow it (by_country)")
    for country in checked.countries:
        _print_country(country)
    for (sentence, fix), countries in _refusals(checked.countries).items():
        say(f"  {', '.join(countries)}: {sentence}")
        say(f"      {TO_DO}{fix}")


def _print_schedule(schedule: "StudySchedule", count: "CohortCharge | None") -> None:
    from governance.budget.composition import accounting_sentence  # noqa: PLC0415
    from protocols.tasks.schedule import COHORT_FLOOR  # noqa: PLC0415

    privacy, releases = schedule.privacy, schedule.mechanisms
    beside = [release for release in releases if count and release.phase == COHORT_FLOOR]
    say(f"  for each patient ε = {exact(privacy.epsilon)}, δ = {exact(privacy.delta)}, in total:")
    _print_releases(release for release in releases if release not in beside)
    if count and beside:
        cost = f"ε = {exact(count.epsilon)}, δ = {exact(count.delta)}"
        say(f"  the count of the cohort costs {cost} more:")
        _print_releases(beside)
        say("      once for all studies of this population and each version of the records")
        both = _added(privacy.epsilon, count.epsilon), _added(privacy.delta, count.delta)
        say("  with this count at most ε = {}, δ = {} for each patient".format(*both))
    phases = [release.phase for release in schedule.mechanisms]
    say(f"  {accounting_sentence(phases, schedule.accounting)}")


def _added(one: float, other: float) -> str:
    """Return the sum of two costs as they are written, rounded up."""
    return rounded_up(float(Decimal(exact(one)) + Decimal(exact(other))))


def _print_releases(releases: "Iterable[ScheduledRelease]") -> None:
    for release in releases:
        times = f"{release.rounds} rounds of " if release.rounds > 1 else ""
        size = counted(release.dimension, "value")
        say(f"    {release.phase:13} {times}{size}, {WHOSE_NOISE[release.scope]}")


def _print_chosen(chosen: "Iterable[str]") -> None:
    for sentence in chosen:
        say(f"  {sentence}")


def _print_country(country: "CountryAnswer") -> None:
    verdict = "would allow" if country.allowed else "would refuse"
    say(f"  {country.country}: {verdict} ({country.answer})")
    if country.minimum_countries:
        say(f"      no sum over fewer than {country.minimum_countries} countries")
    if charge := country.charge:
        say(
            f"      its ledger {charge.register_name!r} would be charged "
            f"{percent(charge.share_of_period)} of a period"
        )


def _refusals(countries: "Iterable[CountryAnswer]") -> dict[tuple[str, str], list[str]]:
    """Return the countries that refuse, grouped by the reason and the fix."""
    refusals: dict[tuple[str, str], list[str]] = {}
    for country in countries:
        for finding in country.findings:
            reason = without_country(finding.sentence, country.country)
            sentence = f"{reason} [{named(finding.clause)}]"
            refusals.setdefault((sentence, finding.fix), []).append(country.country)
    return refusals


def _print_proposed(answer: dict[str, Any]) -> None:
    from server.answers import ProposedStudy  # noqa: PLC0415 (keeps --help quick)

    proposed = parsed(ProposedStudy, answer)
    say(f"Proposed: {proposed.id}, {quoted(proposed.title)}")
    say(f"  {proposed.digest}")
    _print_chosen(proposed.chosen)
    say("  Next: the officers of its countries see it in `pratique-officer inbox`.")


def _print_list(answer: list[dict[str, Any]]) -> None:
    from server.answers import ListedStudy  # noqa: PLC0415 (keeps --help quick)

    if not answer:
        say("No study has been proposed.")
    for study in (parsed(ListedStudy, listed) for listed in answer):
        answers = ", ".join(f"{country} {text}" for country, text in study.answers.items())
        say(f"{study.id}  {study.task}  {study.run or 'not launched'}")
        say(f"    {answers}; expires {study.expires[:10]}")


def _print_launched(answer: dict[str, Any]) -> None:
    from server.answers import LaunchedRun  # noqa: PLC0415 (keeps --help quick)

    launched = parsed(LaunchedRun, answer)
    say(f"Launched: {launched.study}, run {launched.run} (Flower run {launched.flower_run}).")
    say(f"  Next: pratique-coordinator study watch {launched.study}")
