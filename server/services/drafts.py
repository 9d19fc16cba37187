"""Reads a draft of a study: what it leaves to the program is chosen from public constants.

A draft without a schedule gets the newest accounting, and edges for the bins of its evaluation if
it declares none. In a draft,
`learning_rate` and `rounds` of a training task may be `auto`; a learning rate that is left out
means the same. The study that is proposed and signed holds the numbers. Choosing needs the noise,
and the noise needs a whole study: so the draft becomes a study with preliminary numbers, whose
noise is calibrated first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from governance.budget.composition import LARGER
from governance.documents.reading import read_document
from governance.documents.study import Study
from protocols.numerics.mechanism import Mechanism
from protocols.tasks import Feature, Training
from protocols.tasks.bin_edges import edges_sentence, with_edges
from protocols.tasks.step_size import AUTO, RULE, choose_rate, choose_rounds, rounds_sentence
from server.errors import CoordinatorFault
from server.services.country_drafts import with_country

RATE, ROUNDS = "learning_rate", "rounds"
PRELIMINARY = {RATE: 1.0, ROUNDS: RULE.fewest_rounds}
"""Numbers for the settings that are not chosen yet. With the fewest rounds a study needs the least
noise, so none is refused that has few rounds in the end."""
Completion = Callable[[Study], Study]


@dataclass(frozen=True)
class CompletedDraft:
    """A study ready to be proposed, and one sentence for each number that was chosen."""

    study: Study
    chosen: tuple[str, ...] = ()


def read_draft(
    text: str, source: str, given: Mapping[str, Any], complete: Completion
) -> CompletedDraft:
    """Return the study in a draft, with its noise and every number that it leaves open.

    `given` are fields that the text may leave out; `complete` calibrates the noise of a study.
    Raises DocumentFault if the text is no study, CoordinatorFault if a number cannot be chosen, and
    what `complete` raises.
    """
    settings: set[str] = set()

    def fill(values: Mapping[str, Any]) -> dict[str, Any]:
        filled = with_country({**given, **values})
        if not filled.get("mechanisms"):  # a schedule is for the accounting that it was made with
            filled = {"accounting": LARGER, **filled}
        task = filled.get("task")
        if isinstance(task, dict) and (found := open_settings(task)):
            settings.update(found)
            _require_free_rounds(filled, task, found)
            filled["task"] = preliminary(task)
        return filled

    study, about_edges = _with_edges(read_document(Study, text.encode(), source, complete=fill))
    chosen = _choose(study, settings, complete) if settings else CompletedDraft(complete(study))
    return CompletedDraft(chosen.study, (*about_edges, *chosen.chosen))


def _with_edges(study: Study) -> tuple[Study, tuple[str, ...]]:
    """Return the study with edges for its evaluation's bins, and what decides them.

    A schedule in the draft is for the bins that it declares, or for those of an earlier version.
    """
    task = study.task
    if study.mechanisms or not isinstance(task, Training):
        return study, ()
    sentences = tuple(filter(None, (edges_sentence(task),)))
    return study.model_copy(update={"task": with_edges(task, study.features)}), sentences


def open_settings(task: Mapping[str, Any]) -> set[str]:
    """Return the settings that a draft's task leaves open; none if it does not train."""
    if not str(task.get("kind")).startswith("train/"):
        return set()
    left_out = set() if RATE in task else {RATE}
    return left_out | {name for name in PRELIMINARY if task.get(name) == AUTO}


def preliminary(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a draft's task, with a number for each setting that is left open."""
    return {**task, **{name: PRELIMINARY[name] for name in open_settings(task)}}


def _require_free_rounds(
    values: Mapping[str, Any], task: Mapping[str, Any], settings: set[str]
) -> None:
    """Raise CoordinatorFault if something else in the draft decides the number of rounds."""
    if ROUNDS not in settings:
        return
    if values.get("mechanisms"):
        raise CoordinatorFault(
            "The draft says `rounds: auto` and states `mechanisms`",
            why="the schedule in `mechanisms` is for one number of rounds",
            fix="write that number, or remove `mechanisms`; `study check` then chooses both",
        )
    if task.get("local") is not None:
        raise CoordinatorFault(
            "The draft says `rounds: auto` and trains in local mode",
            why="how often countries may send a sum depends on their links, not on the noise",
            fix="write a number of rounds, such as 8; `learning_rate: auto` is possible",
        )


def _choose(study: Study, settings: set[str], complete: Completion) -> CompletedDraft:
    study, chosen = complete(study), []
    if ROUNDS in settings:
        rounds = choose_rounds(*_terms(study))
        study = complete(_with_task(study.with_mechanisms(()), rounds=rounds))
        chosen.append(rounds_sentence(rounds))
    if RATE in settings:
        size = choose_rate(*_terms(study))
        study = _with_task(study, learning_rate=size.rate)
        chosen.append(size.sentence())
    return CompletedDraft(study, tuple(chosen))


def _terms(study: Study) -> tuple[Training, Sequence[Feature], Mechanism, int]:
    """Return what a choice depends on: task, features, release of gradients, countries."""
    task = cast("Training", study.task)  # only training leaves settings open
    for mechanism in study.mechanisms:
        if mechanism.phase == task.gradient_phase:
            return task, study.features, mechanism, len(study.countries)
    raise CoordinatorFault(
        f"No learning rate can be chosen: `mechanisms` have no release {task.gradient_phase!r}",
        why="it is chosen from the noise of that release",
        fix="remove `mechanisms` from the study, or write a number for `learning_rate`",
    )


def _with_task(study: Study, **numbers: float) -> Study:
    return study.model_copy(update={"task": study.task.model_copy(update=numbers)})
