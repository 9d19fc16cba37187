"""Following a run: a progress bar on a terminal, plain lines elsewhere, JSON lines on request."""

import json
import time
from collections.abc import Callable, Iterator
from math import inf
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from governance.runtime.local_rpc import LocalRpcFault
from server.commands.options import on_terminal
from server.commands.wording import missed_words, resumed_words
from server.errors import GONE

LOOK_SECONDS = 0.25
RETURN_SECONDS = 120.0
"""How long a coordinator that is being started again is waited for."""
Look = Callable[[], dict[str, Any]]


def follow(look: Look, *, as_json: bool) -> str:
    """Show a run until it is over and return its last state."""
    if as_json:
        return _each(look, _json_line)
    return _bar(look) if on_terminal() else _each(look, _plain_lines())


def _looks(look: Look) -> Iterator[dict[str, Any]]:
    """Look until the run is over; a coordinator that goes away once it was seen may come back."""
    seen = -inf
    while True:
        try:
            found = look()
        except LocalRpcFault:
            if time.monotonic() - seen > RETURN_SECONDS:
                raise
        else:
            seen = time.monotonic()
            yield found
            if found["over"]:
                return
        time.sleep(LOOK_SECONDS)


def _each(look: Look, tell: Callable[[dict[str, Any]], None]) -> str:
    state, told = "", None
    for found in _looks(look):
        state = found["state"]
        now = (state, found["round"], found["resumed"]["times"])
        if now != told:
            tell(found)
        told = now
    return state


def _json_line(found: dict[str, Any]) -> None:
    typer.echo(json.dumps(found, ensure_ascii=False))


def _plain_lines() -> Callable[[dict[str, Any]], None]:
    shown = resumed = 0

    def tell(found: dict[str, Any]) -> None:
        nonlocal shown, resumed
        if not shown and not found["history"]:
            typer.echo(f"{found['study']}: {found['state']} ({', '.join(found['online'])})")
        if found["resumed"]["times"] > resumed:
            typer.echo(f"  {resumed_words(found['resumed'])}")
        resumed = found["resumed"]["times"]
        for place in range(shown, len(found["history"])):
            typer.echo(_round_line(found["history"][place], found))
            if missed := _newly_missed(found["history"], place):
                typer.echo(f"  {missed_words(missed)}")
        if found["history"] and not shown:
            typer.echo(f"  {_charged(found)}")
        shown = len(found["history"])
        if found["over"]:
            typer.echo(_end_line(found))

    return tell


def _round_line(one: dict[str, Any], found: dict[str, Any]) -> str:
    head = f"  round {one['round']:3}/{found['rounds']}  {one['phase']:9}"
    causes = "; ".join(
        f"{country}, in the sum: {cause}" if country in one["opened"] else f"{country}: {cause}"
        for country, cause in one["causes"].items()
    )
    if one["outcome"] == "void":
        why = "; ".join(filter(None, (one.get("reason", ""), causes)))
        return f"{head}  void  {why} (stays charged)"
    countries = " ".join(one["opened"])
    said = f"{head}  {countries}  {one['seconds']:.2f} s"
    return f"{said}  ({causes})" if causes else said


def _newly_missed(history: list[dict[str, Any]], place: int) -> dict[str, str]:
    """Return who failed the round at this place and not the one before, or has left since; why."""
    before = history[place - 1]["causes"] if place else {}
    return {
        country: cause
        for country, cause in history[place]["causes"].items()
        if country not in before or (cause == GONE != before[country])
    }


def _charged(found: dict[str, Any]) -> str:
    """What the ledgers hold once the first round was asked for: the whole schedule at once."""
    left = ", ".join(f"{c} {100 * one['left']:.0f} %" for c, one in found["ledgers"].items())
    return f"ε={found['epsilon']:g} charged to each ledger; left of this period: {left}"


def _end_line(found: dict[str, Any]) -> str:
    if found["state"] == "finished":
        return (
            f"{found['study']}: finished. See `pratique-coordinator result show {found['study']}`"
        )
    return f"{found['study']}: {found['state']}. {found['reason']}".rstrip()


def _bar(look: Look) -> str:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[countries]}"),
    )
    found: dict[str, Any] = {}
    with Progress(*columns) as progress:
        task = progress.add_task("starting", total=None, countries="")
        above = _above(lambda line: progress.console.print(line, highlight=False))
        for found in _looks(look):
            above(found)
            progress.update(
                task,
                description=found["state"],
                total=found["rounds"],
                completed=len(found["history"]),
                countries=_last_countries(found),
            )
    typer.echo(_end_line(found))
    return str(found["state"])


def _above(tell: Callable[[str], None]) -> Callable[[dict[str, Any]], None]:
    """Say above the bar what a bar cannot: what was charged, who failed a round, resumptions."""
    seen = resumed = 0

    def say(found: dict[str, Any]) -> None:
        nonlocal seen, resumed
        if found["resumed"]["times"] > resumed:
            tell(f"  {resumed_words(found['resumed'])}")
        resumed = found["resumed"]["times"]
        if found["history"] and not seen:
            tell(f"{found['study']}: {_charged(found)}")
        for place in range(seen, len(found["history"])):
            one, missed = found["history"][place], _newly_missed(found["history"], place)
            if one["outcome"] == "void" or missed:
                tell(_round_line(one, found))
            if missed:
                tell(f"  {missed_words(missed)}")
        seen = len(found["history"])

    return say


def _last_countries(found: dict[str, Any]) -> str:
    if not found["history"]:
        return " ".join(found["online"])
    return " ".join(found["history"][-1]["opened"]) or "void"
