"""The study: one question, with everything that it needs and costs."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal, Self

from pydantic import FailFast, Field, model_validator

from governance.budget.composition import SUM
from governance.documents.agreement import Agreement
from governance.documents.models import (
    MOST_CODES,
    MOST_NAMES,
    Countries,
    DataCategories,
    Days,
    Delta,
    Document,
    Duo,
    Ehds,
    Epsilon,
    Line,
    Part,
    PurposeOfUse,
    Sentence,
    Slug,
    UtcTime,
)
from governance.runtime.wording import with_article
from protocols.errors import ProtocolFault
from protocols.numerics.mechanism import Mechanism
from protocols.private_sum.context import RunTerms
from protocols.tasks import Condition, Feature, Task, Training
from protocols.tasks.by_country import COUNTRY, check_by_country
from protocols.tasks.evaluation import USUAL_SHARE
from protocols.tasks.features import Missing, by_name, lookup
from protocols.tasks.local import LocalMode
from protocols.tasks.schedule import COHORT_FLOOR, same_but_noise
from protocols.wire.encoding import Digest, canonical_json


class StudyPurpose(Part):
    """The purpose: an EHDS code, an HL7 purpose of use, DUO terms, and one plain sentence."""

    ehds: Ehds
    purpose_of_use: PurposeOfUse
    duo: Annotated[tuple[Duo, ...], Field(max_length=MOST_CODES), FailFast()] = ()
    sentence: Sentence


class Population(Part):
    """The population: a person register, and conditions on declared features."""

    register_name: Slug = Field(alias="register")
    where: Annotated[tuple[Condition, ...], Field(max_length=32)] = ()


class Privacy(Part):
    """The privacy promise to each patient for the whole study, evaluation included."""

    epsilon: Epsilon
    delta: Delta


class ReleaseKind(StrEnum):
    """What is released."""

    MODEL = "model"
    TABLE = "table"


class Release(Part):
    """What is released, to whom it may be shown, and for how many days it is kept."""

    what: ReleaseKind
    keep_days: Days
    audience: Line


class Study(Document):
    """One question, signed by the coordinator.

    `mechanisms` is the schedule of noisy releases, in order; empty in a draft, until
    `study check` has filled it in from the task and the privacy parameters. `accounting` is how
    their costs add up for a patient (`governance.budget.composition`): 1, as in studies of earlier
    versions, adds them; 2 counts training or evaluation, whichever costs more.
    """

    name_in_messages: ClassVar[str] = "study"

    kind: Literal["study"] = "study"
    schema_version: Literal[1] = Field(default=1, alias="schema")
    id: Slug
    title: Line
    question: Sentence
    agreement: Digest
    purpose: StudyPurpose
    legal_basis: Sentence
    population: Population
    data_categories: DataCategories
    countries: Annotated[Countries, Field(min_length=2)]
    features: Annotated[tuple[Feature, ...], Field(max_length=1_000)] = ()
    task: Task
    privacy: Privacy
    accounting: Annotated[Literal[1, 2], Field(exclude_if=lambda version: version == 1)] = 1
    mechanisms: Annotated[tuple[Mechanism, ...], Field(max_length=32)] = ()
    recipients: Annotated[tuple[Line, ...], Field(min_length=1, max_length=MOST_NAMES)]
    release: Release
    created: UtcTime
    expires: UtcTime

    @model_validator(mode="after")
    def _sound(self) -> Self:
        problems = (
            self._dates_problem(),
            self._release_problem(),
            self._task_problem(),
            self._accounting_problem(),
        )
        for problem in problems:
            if problem:
                raise ValueError(problem)
        return self

    def _dates_problem(self) -> str:
        created = f"{self.created:%Y-%m-%d}"
        problem = f"expires: must be later than the day on which the study is made, {created}"
        return "" if self.created < self.expires else problem

    def _release_problem(self) -> str:
        expected = ReleaseKind.MODEL if self.task.kind.startswith("train/") else ReleaseKind.TABLE
        if self.release.what is expected:
            return ""
        return f"release: {self.task.kind} releases {with_article(expected)}"

    def _task_problem(self) -> str:
        try:
            self.task.check(self.features)
            table = by_name(self.features)
            for condition in self.population.where:
                condition.check(lookup(table, condition.feature, "population"))
            check_by_country(self.task, self.features, self.countries, self.population.where)
        except ProtocolFault as fault:
            return "; ".join(part for part in (fault.sentence, fault.fix) if part)
        return ""

    def _accounting_problem(self) -> str:
        evaluation = self.task.evaluation if isinstance(self.task, Training) else None
        if self.accounting == SUM or evaluation is None or evaluation.share == USUAL_SHARE:
            return ""
        return (
            "task.evaluation.share: divides the budget with `accounting: 1` only; remove it, since "
            "training and evaluation each have the whole ε"
        )

    @property
    def features_used(self) -> tuple[str, ...]:
        """Names of all features whose values a node would read, conditions included."""
        conditions = (condition.feature for condition in self.population.where)
        return tuple(sorted({*self._recorded, *conditions}))

    @property
    def _recorded(self) -> tuple[str, ...]:
        """The features that the task takes from records: not the country, if a node fills it in."""
        used = self.task.names_used(self.features)
        return tuple(name for name in used if not (self.task.by_country and name == COUNTRY))

    def schedule(self) -> tuple[Mechanism, ...]:
        """Return the task's releases, before their noise is set."""
        return self.task.schedule(self.features)

    @property
    def schedule_matches_task(self) -> bool:
        """Whether the schedule is that of the task, with only its noise filled in."""
        templates, given = self.schedule(), self.mechanisms
        return len(templates) == len(given) and all(map(same_but_noise, templates, given))

    @property
    def cohort_definition(self) -> bytes:
        """Everything in the study that decides which patients of a register are in its cohort.

        These are the conditions with their features, and the features that a patient must not lack.
        """
        table = by_name(self.features)
        conditions = self.population.where
        return canonical_json(
            {
                "register": self.population.register_name,
                "where": [condition.model_dump(mode="json") for condition in conditions],
                "features": [table[c.feature].model_dump(mode="json") for c in conditions],
                "needed": sorted(n for n in self._recorded if table[n].missing is Missing.EXCLUDE),
            }
        )

    @property
    def cohort_count(self) -> Mechanism | None:
        """The count behind the cohort floor; None in a draft without a schedule."""
        return next((m for m in self.mechanisms if m.phase == COHORT_FLOOR), None)

    def releases_of(self, agreement: Agreement) -> tuple[Mechanism, ...]:
        """Return the releases that the study's ε covers.

        These are all of them, or all but the cohort's count if the agreement states its cost.
        """
        if agreement.cohort_count is None:
            return self.mechanisms
        return tuple(m for m in self.mechanisms if m.phase != COHORT_FLOOR)

    @property
    def local_mode(self) -> LocalMode | None:
        """How countries train by themselves between sums; None if they do not."""
        return self.task.local if isinstance(self.task, Training) else None

    @property
    def charged_by_run(self) -> tuple[Mechanism, ...]:
        """What each run is charged for: all but the cohort's count, which is charged separately."""
        return tuple(m for m in self.mechanisms if m.costs and m.phase != COHORT_FLOOR)

    def run_terms(
        self,
        agreement: Agreement,
        run_id: bytes,
        roster: tuple[str, ...],
        *,
        permitted_minimum: int = 0,
    ) -> RunTerms:
        """Return the terms of one run of this study. Raises ProtocolFault if they are not valid.

        `permitted_minimum` is the largest number of countries that the permits in hand demand.
        """
        return RunTerms(
            agreement=agreement.digest,
            study=self.digest,
            run_id=run_id,
            roster=roster,
            colluding=agreement.colluding,
            honest=agreement.honest,
            task_kind=self.task.kind,
            mechanisms=self.mechanisms,
            smallest_countries=agreement.smallest_countries,
            permitted_minimum=permitted_minimum,
        )

    def with_mechanisms(self, mechanisms: tuple[Mechanism, ...]) -> Self:
        """Return the study with its schedule filled in; its digest differs."""
        return self.model_copy(update={"mechanisms": mechanisms})
