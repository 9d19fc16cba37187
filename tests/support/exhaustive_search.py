"""Every way in which a liar can have honest countries sign and answer, and what each way opens.

A country's part is a table, made by asking a real one, restored from its stored bytes for each
question: which sets it signs and answers for after what it did before, given who signed the set.
A course gives each honest country one path through that table. Any signature of a course is shown
to anyone at any time, which is more than a liar can do: it asks the signers first. All colluders
sign any set. More answers never open less, so that only the longest paths are tried.

What a course opens: a sum of contributions has the masks of pairs that lie inside it cancelled. So
it is a connected component of the graph whose edges are the pairs of honest countries with a mask
key that nobody revealed, as long as the seed of each country in it is known, and the keys of its
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
"""What each honest country that contributed is asked, in its order."""
REFUSES = (Refusal, KeyError)
"""How a country refuses; the latter where a test switched a check off, and a key that is asked for
was forgotten when another set was signed."""
LONGEST_PATH = 3
"""A country that keeps the rules takes two steps; without one of them, a third shows it."""


@dataclass(frozen=True)
class Setting:
    """n, c and h of a run; `present` of the honest countries contribute, the colluders all do."""

    size: int
    colluding: int
    honest: int
    present: int

    def liar(self) -> LyingCoordinator:
        """Return a liar to whom the last c countries belong, in a world set up."""
        world = ProtocolWorld.ready(self.size, colluding=self.colluding, honest=self.honest)
        roster = world.terms.roster
        return LyingCoordinator(world, roster[self.size - self.colluding :])


class Table:
    """What countries do in one setting.

    Made by asking the first country; that another does the same with the names exchanged is
    what `asking` another one shows.
    """

    def __init__(self, setting: Setting, asking: int = 0) -> None:
        liar = setting.liar()
        self.setting, self.liar = setting, liar
        self.roster = liar.world.terms.roster
        self.threshold = liar.world.terms.threshold
        self.there = liar.honest[: setting.present]
        self._me = self.there[asking]
        self._opened = liar.contributed(without=liar.honest[setting.present :])
        self._view = view_of(self._me, liar.world.terms)
        self._states: dict[Path, bytes | None] = {(): liar.world.countries[self._me].to_bytes()}
        self._asked: dict[tuple[Path, Step, Set], bytes | None] = {}
        self._done: dict[tuple[str, Path, Step, Set], bool] = {}

    @cached_property
    def sets(self) -> tuple[Set, ...]:
        """Every set of countries, the empty one and those without contribution included."""
        sizes = range(self.setting.size + 1)
        return tuple(one for size in sizes for one in combinations(self.roster, size))

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """The longest paths of the first country, with all of each set's members having signed."""
        found, queue = [], deque[Path]([()])
        while queue:
            path = queue.popleft()
            further = [(*path, step) for step in self._steps() if self._goes(path, step)]
            longer = [one for one in further if len(one) <= LONGEST_PATH]
            queue.extend(longer)
            found.append(path)
        return tuple(path for path in found if not any(_outdone(path, other) for other in found))

    def paths_of(self, country: str) -> tuple[Path, ...]:
        """Return the longest paths of a country."""
        return tuple(self._renamed(path, country) for path in self.paths)

    def does(self, country: str, path: Path, step: Step, signers: Set) -> bool:
        """Return whether a country that went `path` takes `step`, seeing these signatures."""
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
        """Return the state at the end of a path on which all members signed; None: refused."""
        if path not in self._states:
            self._states[path] = self._ask(path[:-1], path[-1], path[-1][1])
        return self._states[path]

    def _ask(self, path: Path, step: Step, signers: Set) -> bytes | None:
        key = (path, step, signers)
        if key not in self._asked:
            self._asked[key] = self._asked_now(*key)
        return self._asked[key]

    def _asked_now(self, path: Path, step: Step, signers: Set) -> bytes | None:
        state, (what, chosen) = self._state(path), step
        if state is None:
            return None
        run = CountryRun.from_bytes(state, self._view)
        try:
            if what == "agree":
                run.agree(self.liar.agree_request(self._opened, chosen))
            else:
                shown = () if chosen == self.roster else signers
                signed = [assent(self._opened, one, chosen) for one in shown]
                run.answer(self.liar.answer_request(self._opened, self._me, chosen, signed))
        except REFUSES:
            return None
        return run.to_bytes()

    def _renamed(self, path: Path, country: str) -> Path:
        """Return a path with the first country's name and another's exchanged."""
        if country == self._me:
            return path
        other = {self._me: country, country: self._me}
        return tuple(
            (what, tuple(sorted(other.get(one, one) for one in chosen))) for what, chosen in path
        )


@dataclass(frozen=True)
class Found:
    """What a search found: the sets of honest countries that some course opens, and one course.

    `courses` counts those tried. `worst` opens the smallest set, or two sets at once.
    """

    sets: frozenset[Set]
    courses: int
    together: int
    worst: Course

    @property
    def smallest(self) -> int:
        """The size of the smallest set opened; 0 if none is."""
        return min(map(len, self.sets), default=0)


def searched(table: Table) -> Found:
    """Try every course."""
    sets: set[Set] = set()
    together, tried, worst, rank = 0, 0, None, (0, 0)
    for course in courses(table):
        opened = opens(table, course)
        tried += 1
        sets.update(opened)
        together = max(together, len(opened))
        harm = (-min(map(len, opened), default=table.setting.size + 1), len(opened))
        if worst is None or harm > rank:
            worst, rank = course, harm
    return Found(frozenset(sets), tried, together, worst or {})


def courses(table: Table) -> Iterator[Course]:
    """Yield every course, but for those that differ in the other countries' names only."""
    options = [_different(table), *(table.paths_of(one) for one in table.there[1:])]
    for paths in product(*options):
        yield dict(zip(table.there, paths, strict=True))


def _different(table: Table) -> list[Path]:
    """Return the first country's paths, one for each way in which the other countries differ."""
    kinds: dict[object, Path] = {}
    for path in table.paths_of(table.there[0]):
        named = {chosen for _, chosen in path}
        sizes = [len(set(chosen) & set(table.there)) for chosen in named]
        parts = [len(set(chosen) - set(table.there)) for chosen in named]
        key = (tuple(what for what, _ in path), *sizes, *parts) if len(named) == 1 else path
        kinds.setdefault(key, path)
    return list(kinds.values())


def opens(table: Table, course: Course) -> list[Set]:
    """Return the smallest sets of honest countries that a course opens."""
    answers = list(_answers(table, course))
    revealed = {
        frozenset((one, other))
        for one, chosen in answers
        for other in table.roster
        if other not in chosen
    }
    known = [
        one
        for one in table.there
        if _shares(table, answers, one) >= table.threshold
        and all(frozenset((one, gone)) in revealed for gone in _absent(table))
    ]
    parts = _components(table.there, revealed)
    return sorted(part for part in parts if all(one in known for one in part))


def _answers(table: Table, course: Course) -> Iterator[tuple[str, Set]]:
    """Yield each answer that a course brings, with its set."""
    signed: dict[Set, set[str]] = {}
    for one, path in course.items():
        for what, chosen in path:
            if what == "agree":
                signed.setdefault(chosen, set(table.liar.colluders)).add(one)
    for one, path in course.items():
        for place, (what, chosen) in enumerate(path):
            signers = signed.get(chosen, set(table.liar.colluders)) & set(chosen)
            step = (what, chosen)
            if what == "answer" and table.does(one, path[:place], step, tuple(sorted(signers))):
                yield one, chosen


def _shares(table: Table, answers: list[tuple[str, Set]], owner: str) -> int:
    given = {one for one, chosen in answers if owner in chosen}
    return len(given) + table.setting.colluding


def _absent(table: Table) -> Set:
    return table.liar.honest[table.setting.present :]


def _components(there: Set, revealed: set[frozenset[str]]) -> list[Set]:
    parts: list[set[str]] = []
    for one in there:
        joined = [
            part for part in parts if any(frozenset((one, it)) not in revealed for it in part)
        ]
        parts = [part for part in parts if part not in joined]
        parts.append({one}.union(*joined))
    return [tuple(sorted(part)) for part in parts]


def _outdone(path: Path, other: Path) -> bool:
    """Return whether another path signs and answers for all that this one does, and more."""
    return set(path) < set(other)


def played(setting: Setting, course: Course) -> tuple[Set, ...]:
    """Return what a course opens when it is played with real countries, by what the liar holds."""
    liar = setting.liar()
    opened = liar.contributed(without=liar.honest[setting.present :])
    waiting = {one: list(path) for one, path in course.items()}
    while any(_played_step(liar, opened, one, left) for one, left in waiting.items()):
        pass
    return liar.opens(opened)


def _played_step(liar: LyingCoordinator, opened: object, country: str, left: list[Step]) -> bool:
    if not left:
        return False
    what, chosen = left[0]
    try:
        getattr(liar, what)(opened, country, chosen)
    except REFUSES:
        return False
    left.pop(0)
    return True
