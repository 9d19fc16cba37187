"""What the daemon answers to the commands: one frozen model for each request.

The daemon sends the models as JSON over the local socket; the commands read them again. The JSON
fields are an interface: `--json` prints them, and other programs read that.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """A part of an answer. Fields of a newer daemon are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Resumptions(Answer):
    """How many times a run was resumed by another attempt, and how long ago the last time was."""

    times: int
    seconds_ago: float | None


class LogSummary(Answer):
    """The name of the coordinator's audit log, and its number of entries."""

    origin: str
    size: int


class SignatureTerm(Answer):
    """How long the countries' signatures hold, and which countries have announced a new key."""

    days_left: int
    announced: tuple[str, ...]


class AgreementFault(Answer):
    """Why the agreement cannot be used, and which countries have announced a new key."""

    fault: str
    announced: tuple[str, ...]


class CoordinatorStatus(Answer):
    """What `status` prints; `superlink` and `observe` are host and port.

    `disputes` are certificates that two parties hold; `copies` are countries whose node's identity
    two machines have.
    `not_renewed` says why the timestamp of the documents was not renewed; empty if it was.
    """

    federation: str
    address: str
    authority: str
    nodes: Mapping[str, bool]
    agreement: SignatureTerm | AgreementFault | None
    not_renewed: str
    disputes: tuple[str, ...]
    copies: tuple[str, ...]
    waiting: tuple[str, ...]
    running: tuple[str, ...]
    resumed: Mapping[str, Resumptions]
    superlink: str
    log: LogSummary
    observe: str | None


class EnrolmentSummary(Answer):
    """A request for admission and its status."""

    country: str
    role: str
    fingerprint: str
    status: str


class ListedEnrolment(EnrolmentSummary):
    """A request in the list; `disputed` if two parties hold its certificate."""

    disputed: Literal["yes", ""]


class ListedInvitation(Answer):
    """An invitation; `expires` is a time in UTC."""

    id: str
    country: str
    role: str
    status: str
    expires: str


class AgreementDraft(Answer):
    """A draft that waits for signatures; `announced` are new document keys by country."""

    state: Literal["waiting for signatures"] = "waiting for signatures"
    digest: str
    signed: tuple[str, ...]
    unsigned: tuple[str, ...]
    needed: int
    announced: Mapping[str, str]


class AgreementInForce(Answer):
    """The agreement in force; `announced` are new document keys by country."""

    state: Literal["in force"] = "in force"
    digest: str
    title: str
    countries: tuple[str, ...]
    root: int
    sunset: str
    signatures: str
    signed_until: str
    announced: Mapping[str, str]


class FindingText(Answer):
    """A clause that refuses a study, in words, and how to satisfy it."""

    code: str
    clause: str
    sentence: str
    fix: str


class ChargeEstimate(Answer):
    """What a study would cost a country's ledger."""

    model_config = ConfigDict(serialize_by_alias=True)

    register_name: str = Field(alias="register")
    share_of_period: float
    rdp_micro: int
    order: int
    epsilon: float
    delta: float


class CountryAnswer(Answer):
    """What a country's rules answer to a study, and its cost if it was computed.

    `minimum_countries` is the number that its permit demands for each run and sum.
    """

    country: str
    allowed: bool
    answer: str
    minimum_countries: int | None = None
    clauses: tuple[str, ...]
    findings: tuple[FindingText, ...]
    charge: ChargeEstimate | None


class CohortCharge(Answer):
    """What the count of a cohort costs beside a study, once for a version of the records."""

    epsilon: float
    delta: float


class ProposedStudy(Answer):
    """A completed study and the answers of its countries; `study` is the document as JSON.

    `chosen` says how each number was chosen that the draft left open.
    """

    id: str
    digest: str
    title: str
    study: Mapping[str, Any]
    chosen: tuple[str, ...] = ()
    countries: tuple[CountryAnswer, ...]


class CheckedStudy(ProposedStudy):
    """A study that was checked only, with its local mode and its signatures in words.

    `cohort_count` is null if the agreement states no cost of it: then it is part of the study's ε.
    """

    local_mode: str
    by_country: bool = False
    cohort_count: CohortCharge | None = None
    signatures: str


class StudyPrivacy(Answer):
    """The promise of a study to each patient."""

    epsilon: float
    delta: float


class ScheduledRelease(Answer):
    """One entry of a study's schedule."""

    phase: str
    rounds: int
    dimension: int
    scope: str


class StudySchedule(Answer):
    """The part of a study document that the commands print."""

    privacy: StudyPrivacy
    mechanisms: tuple[ScheduledRelease, ...]
    accounting: int = 1


class ListedStudy(Answer):
    """A published study, the countries' answers, and the state of its newest run."""

    id: str
    title: str
    digest: str
    task: str
    answers: Mapping[str, str]
    run: str | None
    expires: str


class LaunchedRun(Answer):
    """A run that was started, and the Flower run of its first attempt."""

    study: str
    run: str
    flower_run: str


class StoppedRun(Answer):
    """A run that was stopped."""

    study: str
    run: str


class LedgerShares(Answer):
    """The parts of a ledger's budget for this period that are spent and left, from 0 to 1."""

    spent: float
    left: float


class RoundSummary(Answer):
    """A finished round; `opened` are the countries in the sum, `causes` say who failed and why."""

    round: int
    phase: str
    outcome: str
    seconds: float
    opened: tuple[str, ...]
    causes: Mapping[str, str]
    reason: str = ""


class StudyStatus(Answer):
    """The newest run of a study, round by round; `rounds` counts all that it will have.

    `minimum_countries` has, by country, the number that its permit demands for each run and sum.
    `epsilon` and `delta` are the study's; `cohort_count` is charged beside them, unless it is null.
    """

    study: str
    title: str
    run: str
    flower_run: str | None
    state: str
    reason: str
    over: bool
    round: int
    rounds: int
    epsilon: float
    delta: float
    cohort_count: CohortCharge | None = None
    ledgers: Mapping[str, LedgerShares]
    online: Mapping[str, bool]
    minimum_countries: Mapping[str, int] = {}
    history: tuple[RoundSummary, ...]
    resumed: Resumptions
