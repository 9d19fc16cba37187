"""The agreement: what the parties may compute together, with what privacy, and until when."""

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import FailFast, Field, StringConstraints, model_validator

from governance.budget.accounting import cap_micro, with_least_noise
from governance.cedar.engine import check_base
from governance.cedar.texts import BASE_POLICY
from governance.documents.models import (
    MOST_CODES,
    MOST_NAMES,
    Countries,
    Country,
    DataCategories,
    Days,
    Delta,
    Document,
    Ehds,
    Epsilon,
    IdentityKey,
    Line,
    Part,
    PublicKey,
    PurposeOfUse,
    Sentence,
    Slug,
    UtcTime,
)
from governance.documents.purposes import (
    EHDS_CODES,
    EHDS_PROHIBITED,
    PURPOSE_OF_USE,
    with_ancestors,
)
from governance.errors import DocumentFault, LedgerFault
from keys.composite import Suite, halves, read_identity
from protocols.tasks.schedule import INTEGER_SCALE, cohort_floor, largest_cohort_noise
from protocols.wire.encoding import canonical_json, digest

MIN_HONEST = 2
"""With one honest country the opened sum would show that country's part (private-sum.md)."""


TaskKind = Annotated[str, StringConstraints(pattern=r"^[a-z]+/[a-z][a-z0-9-]*$")]


class Party(Part):
    """A country, its authority, and the authority's document key."""

    country: Country
    authority: Line
    officer_key: PublicKey


class Coordinator(Part):
    """The coordinator's keys: for messages, for documents, for the daily timestamp, for its log.

    An agreement from before `log_key` was introduced has none.
    """

    name: Line
    identity_key: IdentityKey
    document_key: PublicKey
    online_key: PublicKey
    log_key: PublicKey | None = Field(default=None, exclude_if=lambda key: key is None)


class AllowedPurpose(Part):
    """An EHDS purpose and the HL7 purposes of use allowed with it, and all codes below them."""

    ehds: Ehds
    purpose_of_use: Annotated[
        tuple[PurposeOfUse, ...], Field(min_length=1, max_length=MOST_CODES), FailFast()
    ]

    @model_validator(mode="after")
    def _lawful(self) -> Self:
        if self.ehds in EHDS_PROHIBITED:
            raise ValueError(f"{self.ehds} is prohibited by Art. 54: no agreement can allow it")
        return self


class ForbiddenPurpose(Part):
    """A forbidden purpose, with all codes below it: one code, a clause and its sentence."""

    ehds: Ehds | None = None
    purpose_of_use: PurposeOfUse | None = None
    clause: Line
    sentence: Sentence

    @model_validator(mode="after")
    def _one_code(self) -> Self:
        if (self.ehds is None) is (self.purpose_of_use is None):
            raise ValueError("give either ehds or purpose_of_use, not both")
        return self

    @property
    def code(self) -> str:
        """The forbidden code."""
        return self.ehds or self.purpose_of_use or ""


class Purposes(Part):
    """Purposes allowed and forbidden. What is not allowed is refused."""

    allowed: Annotated[tuple[AllowedPurpose, ...], Field(min_length=1, max_length=MOST_CODES)]
    forbidden: Annotated[tuple[ForbiddenPurpose, ...], Field(max_length=MOST_NAMES)] = ()


class RegisterBudget(Part):
    """The privacy budget of one person register per period, for all studies together.

    `order` is the Rényi order at which the ledger adds up; its cap there follows from ε and δ.
    """

    register_name: Slug = Field(alias="register")
    period_days: Days
    epsilon: Epsilon
    delta: Delta
    order: Annotated[int, Field(ge=2, le=1_024)]

    @model_validator(mode="after")
    def _spendable(self) -> Self:
        try:
            cap = cap_micro(self.epsilon, self.delta, self.order)
        except LedgerFault as fault:
            raise ValueError(f"{fault.what}; {fault.fix}") from None
        if cap < 1:
            raise ValueError(f"at order {self.order} this ε and δ leave nothing to spend")
        return self


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


class CohortCount(Part):
    """The privacy cost of the noisy count with which a country checks its smallest cohort.

    A country pays it once for each register, population and version of its records, beside the ε
    of the studies that use the count. The count has this country's noise alone.
    """

    epsilon: Epsilon
    delta: Delta

    @property
    def noise_std(self) -> int:
        """The standard deviation of the count's noise, in lattice units."""
        return with_least_noise(cohort_floor(1), 1, self.epsilon, self.delta).noise_std


DEFAULT_COHORT_COUNT = {"epsilon": 0.5, "delta": 1e-6}
"""What a new draft states unless its author does."""


class RoleAccess(Part):
    """A role and what it may do."""

    role: Slug
    may: Annotated[tuple[Action, ...], Field(max_length=MOST_CODES)]


class EmergencyClause(Part):
    """An emergency: its indicator, how many must concur, what it relaxes, when it lapses."""

    id: Slug
    indicator: Sentence
    concur: Annotated[int, Field(ge=1)]
    relaxes: Annotated[tuple[Slug, ...], Field(min_length=1, max_length=MOST_NAMES)]
    lapses_days: Annotated[int, Field(ge=1, le=90)]


class Agreement(Document):
    """The agreement between the parties; signed by `amendment_threshold` of them.

    `colluding` is c, `honest` is h: noise and masks protect against the coordinator together with
    any c countries, and rely on h honest ones. `signatures` is how the messages of a run are
    signed; it is left out if it is Ed25519, as before the field was introduced. Without
    `cohort_count`, as before that field was introduced, each study pays for its own count. With
    `by_country`, a study may show each country's own sum, with noise only, if every permit says so.
    """

    name_in_messages: ClassVar[str] = "agreement"

    kind: Literal["agreement"] = "agreement"
    schema_version: Literal[1] = Field(default=1, alias="schema")
    id: Slug
    title: Line
    federation: Slug
    parties: Annotated[tuple[Party, ...], Field(min_length=2, max_length=100)]
    coordinator: Coordinator
    purposes: Purposes
    data_categories: DataCategories
    task_kinds: Annotated[tuple[TaskKind, ...], Field(min_length=1, max_length=MOST_NAMES)]
    budget: Annotated[tuple[RegisterBudget, ...], Field(min_length=1, max_length=MOST_NAMES)]
    colluding: Annotated[int, Field(ge=0)]
    honest: Annotated[int, Field(ge=MIN_HONEST)]
    smallest_countries: Annotated[int, Field(ge=2)]
    smallest_cohort: Annotated[int, Field(ge=1)]
    cohort_count: CohortCount | None = Field(default=None, exclude_if=lambda count: count is None)
    signatures: Annotated[Suite, Field(exclude_if=lambda suite: suite is Suite.ED25519)] = (
        Suite.ED25519
    )
    by_country: bool = Field(default=False, exclude_if=lambda allowed: not allowed)
    retention: Retention
    roles: Annotated[tuple[RoleAccess, ...], Field(max_length=MOST_NAMES)] = ()
    emergency: Annotated[tuple[EmergencyClause, ...], Field(max_length=MOST_NAMES)] = ()
    amendment_threshold: Annotated[int, Field(ge=1)]
    effective: UtcTime
    sunset: UtcTime
    renewal: UtcTime
    policy: str = BASE_POLICY

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for problem in (
            self._parties_problem(),
            self._privacy_problem(),
            self._cohort_problem(),
            self._threshold_problem(),
            self._dates_problem(),
            self._purpose_problem(),
            self._policy_problem(),
        ):
            if problem:
                raise ValueError(problem)
        return self

    def _parties_problem(self) -> str:
        coordinator = self.coordinator
        keys = [*(p.officer_key for p in self.parties), coordinator.identity_key]
        keys += [
            coordinator.document_key,
            coordinator.online_key,
            *filter(None, [coordinator.log_key]),
        ]
        if len(set(self.countries)) != len(self.parties):
            return "parties: a country is named twice"
        key_halves = [half for key in keys for half in halves(key)]
        if len(set(key_halves)) != len(key_halves):
            return "parties and coordinator: no key may be used twice"
        if not self.signatures.admits(read_identity(coordinator.identity_key)):
            return (
                f"signatures: {self.signatures} is required, but the coordinator's key for "
                "messages is Ed25519; it makes another with `pratique-coordinator rotate`"
            )
        registers = [budget.register_name for budget in self.budget]
        return "budget: a register is named twice" if len(set(registers)) < len(registers) else ""

    def _privacy_problem(self) -> str:
        needed, n = self.honest + self.colluding, len(self.parties)
        if self.smallest_countries < needed:
            return f"smallest_countries must be at least honest + colluding, {needed}"
        if self.smallest_countries > n:
            return f"smallest_countries must be at most the number of parties, {n}"
        too_many = (clause.id for clause in self.emergency if clause.concur > n)
        return next(
            (f"emergency {id_}: more must concur than there are parties" for id_ in too_many), ""
        )

    def _cohort_problem(self) -> str:
        if self.cohort_count is None:
            return ""
        try:
            noise = self.cohort_count.noise_std
        except LedgerFault:
            return "cohort_count: no noise gives this ε at this δ; state a larger epsilon"
        most = largest_cohort_noise(self.smallest_cohort)
        if noise <= most:
            return ""
        return (
            f"cohort_count: at this ε the noise has a standard deviation of "
            f"{noise / INTEGER_SCALE:.3g} patients, and with a smallest cohort of "
            f"{self.smallest_cohort} it may have {most / INTEGER_SCALE:.3g}; state a larger epsilon"
        )

    def _threshold_problem(self) -> str:
        n, m = len(self.parties), self.amendment_threshold
        needed = (n + self.colluding) // 2 + 1
        if needed <= m <= n:
            return ""
        return (
            f"amendment_threshold must be from {needed} to {n}: more than (n + c)/2, so that two "
            f"groups that both reach it share an honest country"
        )

    def _dates_problem(self) -> str:
        if not self.effective < self.sunset:
            return "effective must be before sunset"
        inside = self.effective < self.renewal <= self.sunset
        return "" if inside else "renewal must be between effective and sunset"

    def _purpose_problem(self) -> str:
        allowed = self.purposes.allowed
        pairs = dict.fromkeys(
            (entry.ehds, use) for entry in allowed for use in entry.purpose_of_use
        )
        for ehds, use in pairs:
            rule = self.forbidding(ehds, use)
            if rule:
                return f"purposes: {ehds} {use} is allowed, but {rule.clause} forbids it"
        return ""

    def _policy_problem(self) -> str:
        try:
            check_base(self.policy)
        except DocumentFault as fault:
            return f"policy: {fault.why}"
        return ""

    @cached_property
    def digest(self) -> str:
        """`sha256:<hex>` of the terms: all fields except the keys.

        Studies, permits and runs name this digest. They stay valid when a key changes, because a
        key shows who signs and not what was agreed. Root and targets metadata bind the keys.
        """
        return digest(canonical_json(_without_keys(self.model_dump(mode="json"))))

    def with_officer_keys(self, keys: Mapping[str, str]) -> Self:
        """Return the agreement with other document keys, by country. Raises ValidationError."""
        values = self.model_dump(mode="json")
        for party in values["parties"]:
            party["officer_key"] = keys.get(party["country"], party["officer_key"])
        return self.model_validate(values)

    def with_coordinator_keys(self, keys: Mapping[str, str]) -> Self:
        """Return the agreement with other keys of the coordinator. Raises ValidationError."""
        values = self.model_dump(mode="json")
        values["coordinator"] |= keys
        return self.model_validate(values)

    @property
    def countries(self) -> Countries:
        """The parties' countries, sorted."""
        return tuple(sorted(party.country for party in self.parties))

    def forbidding(self, ehds: str, purpose_of_use: str) -> ForbiddenPurpose | None:
        """Return the first rule that forbids the purpose, by one of its codes or a code above."""
        above = {
            *with_ancestors(EHDS_CODES, ehds),
            *with_ancestors(PURPOSE_OF_USE, purpose_of_use),
        }
        return next((rule for rule in self.purposes.forbidden if rule.code in above), None)

    def party(self, country: str) -> Party | None:
        """Return the country's party, or None."""
        return next((party for party in self.parties if party.country == country), None)

    def register_budget(self, register: str) -> RegisterBudget | None:
        """Return the budget of the person register, or None."""
        return next((b for b in self.budget if b.register_name == register), None)


def _without_keys(values: dict[str, Any]) -> dict[str, Any]:
    def stripped(part: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in part.items() if not name.endswith("_key")}

    parties = [stripped(party) for party in values["parties"]]
    return values | {"parties": parties, "coordinator": stripped(values["coordinator"])}
