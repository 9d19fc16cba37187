"""Follows a run: a progress bar on a terminal, else plain lines, or JSON lines on request."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import inf
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from governance.runtime.cli_support import as_json_text, say
from governance.runtime.local_rpc import LocalRpcFault
from governance.runtime.safe_text import escaped
from governance.runtime.text_layout import broken, line_width
from governance.runtime.wording import exact
from server.answers import RoundSummary, StudyStatus
from server.commands.options import on_terminal, parsed
from server.commands.wording import minimum_words, missed_words, resumed_words
from server.errors import GONE

LOOK_SECONDS = 0.25
RETURN_SECONDS = 120.0
"""How long to wait for a coordinator that is being restarted."""
Look = Callable[[], dict[str, Any]]
"""Asks the daemon for the `study_status` of the run."""


def follow(look: Look, *, as_json: bool) -> str:
    """Print a run's progress until it is over, and return its last state."""
    if as_json:
        return _follow_changes(look, _print_json)
    return _follow_bar(look) if on_terminal() else _follow_changes(look, _Lines().show)


def _statuses(look: Look) -> Iterator[tuple[StudyStatus, dict[str, Any]]]:
    """Yield the run's status, as a model and as JSON values, until the run is over.

    A coordinator that answered once may be away for RETURN_SECONDS.
    """
    answered = -inf
    while True:
        try:
            answer = look()
        except LocalRpcFault:
            if time.monotonic() - answered > RETURN_SECONDS:
                raise
        else:
            answered = time.monotonic()
            status = parsed(StudyStatus, answer)
            yield status, answer
            if status.over:
                return
        time.sleep(LOOK_SECONDS)


def _follow_changes(look: Look, show: Callable[[StudyStatus, dict[str, Any]], None]) -> str:
    """Show each status that differs from the one before in state, round or resumptions."""
    shown = None
    state = ""
    for status, answer in _statuses(look):
        state = status.state
        now = (state, status.round, status.resumed.times)
        if now != shown:
            show(status, answer)
        shown = now
    return state


def _print_json(_: StudyStatus, answer: dict[str, Any]) -> None:
    typer.echo(as_json_text(answer, indent=None))


class _Lines:
    """Prints a run line by line: each round, what was charged, resumptions, and the end."""

    def __init__(self) -> None:
        self._rounds = self._resumed = 0

    def show(self, status: StudyStatus, _: dict[str, Any]) -> None:
        """Print what is new in this status."""
        history = status.history
        if not self._rounds and not history:
            say(f"{status.study}: {status.state} ({', '.join(status.online)})")
            if demanded := minimum_words(status.minimum_countries):
                say(f"  {demanded}")
        if status.resumed.times > self._resumed:
            say(f"  {resumed_words(status.resumed)}")
        for index in range(self._rounds, len(history)):
            say(_round_line(history[index], status.rounds))
            if missed := _newly_missed(history, index):
                say(f"  {missed_words(missed)}")
        if history and not self._rounds:
            say(f"  {_charged(status)}")
        self._rounds, self._resumed = len(history), status.resumed.times
        if status.over:
            say(_end_line(status))


def _round_line(finished: RoundSummary, rounds: int) -> str:
    head = f"  round {finished.round:3}/{rounds}  {finished.phase:9}"
    causes = "; ".join(
        f"{country}, in the sum: {cause}" if country in finished.opened else f"{country}: {cause}"
        for country, cause in finished.causes.items()
    )
    if finished.outcome == "void":
        why = "; ".join(filter(None, (finished.reason, causes)))
        return f"{head}  void  {why} (stays charged)"
    line = f"{head}  {' '.join(finished.opened)}  {finished.seconds:.2f} s"
    return f"{line}  ({causes})" if causes else line


def _newly_missed(history: Sequence[RoundSummary], index: int) -> dict[str, str]:
    """Return the new failures of a round, or a node gone since the round before; with the cause."""
    before = history[index - 1].causes if index else {}
    return {
        country: cause
        for country, cause in history[index].causes.items()
        if country not in before or (cause == GONE != before[country])
    }


def _charged(status: StudyStatus) -> str:
    """Return the charge of the first round, which is for the whole schedule, and what is left."""
    left = ", ".join(
        f"{country} {100 * shares.left:.0f} %" for country, shares in status.ledgers.items()
    )
    cost = f"ε = {exact(status.epsilon)}, δ = {exact(status.delta)} charged to each ledger"
    if count := status.cohort_count:
        cost += (
            f", and for the count of the cohort ε = {exact(count.epsilon)}, "
            f"δ = {exact(count.delta)} more, unless it was charged before"
        )
    return f"{cost}; left of this period: {left}"


def _end_line(status: StudyStatus) -> str:
    if status.state == "finished":
        return f"{status.study}: finished. See `pratique-coordinator result show {status.study}`"
    return f"{status.study}: {status.state}. {status.reason}".rstrip()


def _follow_bar(look: Look) -> str:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[countries]}", markup=False),
    )
    state, end = "", ""
    with Progress(*columns) as progress:
        task = progress.add_task("starting", total=None, countries="")
        above = _AboveBar(partial(_print_above, progress.console))
        for status, _ in _statuses(look):
            above.show(status)
            progress.update(
                task,
                description=escaped(status.state),
                total=status.rounds,
                completed=len(status.history),
                countries=_last_countries(status),
            )
            state, end = status.state, _end_line(status)
    say(end)
    return state


def _print_above(console: Console, line: str) -> None:
    """Print a line above the bar as it is: what it quotes is no markup."""
    for part in broken(line, line_width()):
        console.print(Text(part), highlight=False, soft_wrap=True)


class _AboveBar:
    """Prints above the bar: what was charged, failed rounds and resumptions."""

    def __init__(self, echo: Callable[[str], None]) -> None:
        self._echo = echo
        self._rounds = self._resumed = 0

    def show(self, status: StudyStatus) -> None:
        """Print what is new in this status."""
        history = status.history
        if status.resumed.times > self._resumed:
            self._echo(f"  {resumed_words(status.resumed)}")
        if history and not self._rounds:
            self._echo(f"{status.study}: {_charged(status)}")
        for index in range(self._rounds, len(history)):
            missed = _newly_missed(history, index)
            if history[index].outcome == "void" or missed:
                self._echo(_round_line(history[index], status.rounds))
            if missed:
                self._echo(f"  {missed_words(missed)}")
        self._rounds, self._resumed = len(history), status.resumed.times


def _last_countries(status: StudyStatus) -> str:
    if not status.history:
        return " ".join(status.online)
    return " ".join(status.history[-1].opened) or "void"
