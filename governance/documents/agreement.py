"""The agreement: what the parties allow each other to compute, at what privacy, until when."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from governance.documents.models import (
    Countries,
    Country,
    DataCategory,
    Days,
    Delta,
    Document,
    Ehds,
    Epsilon,
    Line,
    Part,
    PublicKey,
    PurposeOfUse,
    Sentence,
    Slug,
    UtcTime,
)
from governance.policy.texts import BASE_POLICY
from governance.purposes import EHDS_PROHIBITED

FEWEST_HONEST = 2
"""With one honest country the opened sum would be that country's own (private-sum.md)."""


class Party(Part):
    """A country, the authority that speaks for it, and that authority's document key."""

    country: Country
    authority: Line
    officer_key: PublicKey


class Coordinator(Part):
    """The coordinator's keys: messages, studies and releases, and the daily timestamp."""

    name: Line
    identity_key: PublicKey
    document_key: PublicKey
    online_key: PublicKey


class AllowedPurpose(Part):
    """An EHDS purpose and the HL7 purposes of use that are allowed under it, with all below."""

    ehds: Ehds
    purpose_of_use: Annotated[tuple[PurposeOfUse, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _lawful(self) -> Self:
        if self.ehds in EHDS_PROHIBITED:
            raise ValueError(f"{self.ehds} is prohibited by Art. 54: no agreement can allow it")
        return self


class ForbiddenPurpose(Part):
    """A purpose that is refused, with all below it: one code, a clause and its sentence."""

    ehds: Ehds | None = None
    purpose_of_use: PurposeOfUse | None = None
    clause: Line
    sentence: Sentence

    @model_validator(mode="after")
    def _one_code(self) -> Self:
        if (self.ehds is None) is (self.purpose_of_use is None):
            raise ValueError("give ehds or purpose_of_use, one of the two")
        return self

    @property
    def code(self) -> str:
        """The code that is refused."""
        return self.ehds or self.purpose_of_use or ""


class Purposes(Part):
    """Purposes allowed and forbidden. What is not allowed is refused."""

    allowed: Annotated[tuple[AllowedPurpose, ...], Field(min_length=1)]
    forbidden: tuple[ForbiddenPurpose, ...] = ()


class RegisterBudget(Part):
    """What studies together may spend of one person register's privacy in each period.

    `order` is the Rényi order at which the ledger adds up; ε and δ are what its cap implies.
    """

    register_name: Slug = Field(alias="register")
    period_days: Days
    epsilon: Epsilon
    delta: Delta
    order: Annotated[int, Field(ge=2, le=1_024)]


class Retention(Part):
    """How long results and logs are kept, in days."""

    results_days: Days
    logs_days: Days


class Action(StrEnum):
    """What a role may do."""

    PROPOSE = "propose"
    APPROVE = "approve"
    LAUNCH = "launch"
    READ_RESULT = "read-result"
    READ_LOG = "read-log"
    WITNESS = "witness"


class RoleAccess(Part):
    """A role and what it may do."""

    role: Slug
    may: tuple[Action, ...]


class EmergencyClause(Part):
    """What an indicator relaxes, who must concur, and after how many days it lapses."""

    id: Slug
    indicator: Sentence
    concur: Annotated[int, Field(ge=1)]
    relaxes: Annotated[tuple[Slug, ...], Field(min_length=1)]
    lapses_days: Annotated[int, Field(ge=1, le=90)]


class Agreement(Document):
    """The agreement between the parties; signed by `amendment_threshold` of them.

    `colluding` is c, `honest` is h: noise and masks protect against the coordinator together with
    any c countries, and rely on h honest ones.
    """

    title_of_kind: ClassVar[str] = "agreement"

    kind: Literal["agreement"] = "agreement"
    schema_version: Literal[1] = Field(default=1, alias="schema")
    id: Slug
    title: Line
    federation: Slug
    parties: Annotated[tuple[Party, ...], Field(min_length=2, max_length=100)]
    coordinator: Coordinator
    purposes: Purposes
    data_categories: Annotated[tuple[DataCategory, ...], Field(min_length=1)]
    task_kinds: Annotated[tuple[str, ...], Field(min_length=1)]
    budget: Annotated[tuple[RegisterBudget, ...], Field(min_length=1)]
    colluding: Annotated[int, Field(ge=0)]
    honest: Annotated[int, Field(ge=FEWEST_HONEST)]
    smallest_countries: Annotated[int, Field(ge=2)]
    smallest_cohort: Annotated[int, Field(ge=1)]
    retention: Retention
    roles: tuple[RoleAccess, ...] = ()
    emergency: tuple[EmergencyClause, ...] = ()
    amendment_threshold: Annotated[int, Field(ge=1)]
    effective: UtcTime
    sunset: UtcTime
    renewal: UtcTime
    policy: str = BASE_POLICY

    @property
    def countries(self) -> Countries:
        """The parties' countries, sorted."""
        return tuple(sorted(party.country for party in self.parties))

    def party(self, country: str) -> Party | None:
        """Return the party of that country, if it is one."""
        return next((party for party in self.parties if party.country == country), None)

    def register_budget(self, register: str) -> RegisterBudget | None:
        """Return the budget of that person register, if the agreement has one."""
        return next((b for b in self.budget if b.register_name == register), None)
