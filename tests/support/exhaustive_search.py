"""Search all ways in which a lying coordinator can get signatures and answers, and what each opens.

A table lists what a country does: which sets it signs and answers for after its earlier steps,
given who signed the set. It is made by asking a real country, restored from its stored bytes for
each question. A course gives each honest country one path through that table. Any signature of a
course can be shown to anyone at any time, which is more than a liar can do: it must ask the signers
first. All colluders sign any set. More answers never open less, so only the longest paths are
tried.

What a course opens: in a sum of contributions, the masks of pairs inside it cancel. So an opened
set is a connected component of the graph whose edges are the pairs of honest countries with a mask
key that nobody revealed. The seed of each country in it must be known, and so must the keys of its
masks with honest countries that contributed nothing.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product

from protocols.errors import Refusal
from protocols.private_sum.country_run import CountryRun
from tests.support.lying_coordinator import LyingCoordinator, Set, assent
from tests.support.protocol_world import ProtocolWorld, view_of

Step = tuple[str, Set]
"""("agree" or "answer", the set asked for)."""
Path = tuple[Step, ...]
Course = Mapping[str, Path]
"""What each honest country that contributed is asked, in order."""
REFUSES = (Refusal, KeyError)
"""How a country refuses. KeyError occurs if a test switched a check off, and the key that is asked
for was deleted when another set was signed."""
LONGEST_PATH = 3
"""A country that follows the rules takes two steps; if a rule is off, the third step shows it."""


@dataclass(frozen=True)
class Setting:
    """n, c and h of a run; `present` honest countries contribute, and all colluders do."""

    size: int
    colluding: int
    honest: int
    present: int

    def liar(self) -> LyingCoordinator:
        """Return a liar with whom the last c countries collude, in a world after set-up."""
        world = ProtocolWorld.ready(self.size, colluding=self.colluding, honest=self.honest)
        roster = world.terms.roster
        return LyingCoordinator(world, roster[self.size - self.colluding :])


class Table:
    """What countries do in one setting.

    It is made by asking the first country. Other countries do the same with the names exchanged; a
    table made by `asking` another country shows this.
    """

    def __init__(self, setting: Setting, asking: int = 0) -> None:
        liar = setting.liar()
        self.setting, self.liar = setting, liar
        self.roster = liar.world.terms.roster
        self.threshold = liar.world.terms.threshold
        self.contributors = liar.honest[: setting.present]
        self._me = self.contributors[asking]
        self._round = liar.contributed(without=liar.honest[setting.present :])
        self._view = view_of(self._me, liar.world.terms)
        self._states: dict[Path, bytes | None] = {(): liar.world.countries[self._me].to_bytes()}
        self._states_after: dict[tuple[Path, Step, Set], bytes | None] = {}
        self._done: dict[tuple[str, Path, Step, Set], bool] = {}

    @cached_property
    def sets(self) -> tuple[Set, ...]:
        """All sets of countries, with the empty one and those without contribution."""
        sizes = range(self.setting.size + 1)
        return tuple(members for size in sizes for members in combinations(self.roster, size))

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """The longest paths of the first country, if all members of each set have signed."""
        reached, queue = [], deque[Path]([()])
        while queue:
            path = queue.popleft()
            further = [(*path, step) for step in self._steps() if self._goes(path, step)]
            longer = [one for one in further if len(one) <= LONGEST_PATH]
            queue.extend(longer)
            reached.append(path)
        return tuple(p for p in reached if not any(_outdone(p, other) for other in reached))

    def paths_of(self, country: str) -> tuple[Path, ...]:
        """Return the longest paths of a country."""
        return tuple(self._renamed(path, country) for path in self.paths)

    def does(self, country: str, path: Path, step: Step, signers: Set) -> bool:
        """Return whether a country does `step` after `path`, if it sees these signatures."""
        key = (country, path, step, signers)
        if key not in self._done:
            self._done[key] = self._does(*key)
        return self._done[key]

    def _does(self, country: str, path: Path, step: Step, signers: Set) -> bool:
        path, (step,) = self._renamed(path, country), self._renamed((step,), country)
        ((_, signers),) = self._renamed((("", signers),), country)
        if any(self._state(path[:end]) is None for end in range(len(path) + 1)):
            return False
        return self._ask(path, step, signers) is not None

    def _steps(self) -> Iterator[Step]:
        yield from product(("agree", "answer"), self.sets)

    def _goes(self, path: Path, step: Step) -> bool:
        return step not in path and self._state((*path, step)) is not None

    def _state(self, path: Path) -> bytes | None:
        """Return the state after a path on which all members signed; None if a step is refused."""
        if path not in self._states:
            self._states[path] = self._ask(path[:-1], path[-1], path[-1][1])
        return self._states[path]

    def _ask(self, path: Path, step: Step, signers: Set) -> bytes | None:
        key = (path, step, signers)
        if key not in self._states_after:
            self._states_after[key] = self._state_after(*key)
        return self._states_after[key]

    def _state_after(self, path: Path, step: Step, signers: Set) -> bytes | None:
        state, (what, chosen) = self._state(path), step
        if state is None:
            return None
        run = CountryRun.from_bytes(state, self._view)
        try:
            if what == "agree":
                run.agree(self.liar.agree_request(self._round, chosen))
            else:
                signers_shown = () if chosen == self.roster else signers
                signed = [assent(self._round, signer, chosen) for signer in signers_shown]
                run.answer(self.liar.answer_request(self._round, self._me, chosen, signed))
        except REFUSES:
            return None
        return run.to_bytes()

    def _renamed(self, path: Path, country: str) -> Path:
        """Return a path with the first country's name and another's exchanged."""
        if country == self._me:
            return path
        other = {self._me: country, country: self._me}
        return tuple(
            (what, tuple(sorted(other.get(name, name) for name in chosen))) for what, chosen in path
        )


@dataclass(frozen=True)
class SearchResult:
    """The result of a search: the sets of honest countries that courses open, and the worst course.

    `courses` counts those tried; `together` is the most sets that one course opens. The `worst`
    course opens the smallest set, or two sets at once.
    """

    sets: frozenset[Set]
    courses: int
    together: int
    worst: Course

    @property
    def smallest(self) -> int:
        """The size of the smallest set opened; 0 if none is."""
        return min(map(len, self.sets), default=0)


def search(table: Table) -> SearchResult:
    """Try every course, and return what they open."""
    sets: set[Set] = set()
    together, tried, worst, rank = 0, 0, None, (0, 0)
    for course in courses(table):
        opened_sets = opens(table, course)
        tried += 1
        sets.update(opened_sets)
        together = max(together, len(opened_sets))
        harm = (-min(map(len, opened_sets), default=table.setting.size + 1), len(opened_sets))
        if worst is None or harm > rank:
            worst, rank = course, harm
    return SearchResult(frozenset(sets), tried, together, worst or {})


def courses(table: Table) -> Iterator[Course]:
    """Yield every course, except those that differ only in the other countries' names."""
    options = [_different(table), *(table.paths_of(country) for country in table.contributors[1:])]
    for paths in product(*options):
        yield dict(zip(table.contributors, paths, strict=True))


def _different(table: Table) -> list[Path]:
    """Return the first country's paths, without those that only exchange other countries' names."""
    kinds: dict[object, Path] = {}
    for path in table.paths_of(table.contributors[0]):
        named = {chosen for _, chosen in path}
        sizes = [len(set(chosen) & set(table.contributors)) for chosen in named]
        parts = [len(set(chosen) - set(table.contributors)) for chosen in named]
        key = (tuple(what for what, _ in path), *sizes, *parts) if len(named) == 1 else path
        kinds.setdefault(key, path)
    return list(kinds.values())


def opens(table: Table, course: Course) -> list[Set]:
    """Return the smallest sets of honest countries that a course opens."""
    answers = list(_answers(table, course))
    revealed = {
        frozenset((country, other))
        for country, chosen in answers
        for other in table.roster
        if other not in chosen
    }
    known = [
        country
        for country in table.contributors
        if _shares(table, answers, country) >= table.threshold
        and all(frozenset((country, absent)) in revealed for absent in _absent(table))
    ]
    parts = _components(table.contributors, revealed)
    return sorted(part for part in parts if all(country in known for country in part))


def _answers(table: Table, course: Course) -> Iterator[tuple[str, Set]]:
    """Yield each country that answers in a course, with the set that it answers for."""
    signed: dict[Set, set[str]] = {}
    for country, path in course.items():
        for what, chosen in path:
            if what == "agree":
                signed.setdefault(chosen, set(table.liar.colluders)).add(country)
    for country, path in course.items():
        for index, (what, chosen) in enumerate(path):
            signers = signed.get(chosen, set(table.liar.colluders)) & set(chosen)
            step = (what, chosen)
            if what == "answer" and table.does(country, path[:index], step, tuple(sorted(signers))):
                yield country, chosen


def _shares(table: Table, answers: list[tuple[str, Set]], owner: str) -> int:
    answering = {country for country, chosen in answers if owner in chosen}
    return len(answering) + table.setting.colluding


def _absent(table: Table) -> Set:
    return table.liar.honest[table.setting.present :]


def _components(contributors: Set, revealed: set[frozenset[str]]) -> list[Set]:
    parts: list[set[str]] = []
    for country in contributors:
        joined = [
            part for part in parts if any(frozenset((country, it)) not in revealed for it in part)
        ]
        parts = [part for part in parts if part not in joined]
        parts.append({country}.union(*joined))
    return [tuple(sorted(part)) for part in parts]


def _outdone(path: Path, other: Path) -> bool:
    """Return whether another path has all steps of this one, and more."""
    return set(path) < set(other)


def play(setting: Setting, course: Course) -> tuple[Set, ...]:
    """Return what a course opens with real countries, by what the liar then knows."""
    liar = setting.liar()
    coordinator_round = liar.contributed(without=liar.honest[setting.present :])
    waiting = {country: list(path) for country, path in course.items()}
    while any(
        _play_step(liar, coordinator_round, country, remaining_steps)
        for country, remaining_steps in waiting.items()
    ):
        pass
    return liar.opens(coordinator_round)


def _play_step(
    liar: LyingCoordinator, coordinator_round: object, country: str, remaining_steps: list[Step]
) -> bool:
    if not remaining_steps:
        return False
    what, chosen = remaining_steps[0]
    try:
        getattr(liar, what)(coordinator_round, country, chosen)
    except REFUSES:
        return False
    remaining_steps.pop(0)
    return True
