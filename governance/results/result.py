"""A released result on disk: the signed `result.json`, with `model.safetensors` beside it.

`result.json` states the question, the countries that took part, the privacy cost to each patient,
the quality of the result, and the documents that were in force. It names the model by its digest,
so that one signature covers both files.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load, save

from governance.budget.composition import schedule_epsilon
from governance.documents.problems import first_problem
from governance.errors import ResultFault
from governance.results.figures_format import EVALUATION, TABLE
from governance.runtime.files import write_atomic
from governance.runtime.safe_text import named
from governance.runtime.text_files import read_bounded
from governance.runtime.wording import counted, exact, rounded_up
from keys.derive import labelled_hash
from keys.errors import KeyFault, reason_of
from keys.identity import VerifyKey
from protocols.numerics.mechanism import Mechanism
from protocols.tasks import Feature, Task, Training
from protocols.tasks.baselines import CountryBaselines, baselines_problem
from protocols.tasks.by_country import COUNTRY
from protocols.tasks.features import FloatArray
from protocols.tasks.schedule import COHORT_FLOOR, same_but_noise
from protocols.tasks.tensors import Tensor, split
from protocols.wire.document_versions import DocumentVersions
from protocols.wire.encoding import Digest, canonical_json, digest

COST_TOLERANCE = 1e-6
"""By how much a recomputed ε may be higher, on a machine with another mathematics library."""
LABEL = "pratique/result/v1"
RESULT_FILE = "result.json"
MODEL_FILE = "model.safetensors"
LARGEST_FILE = 64 * 1024 * 1024
_SPOILED = (
    "A dishonest country can spoil this result: the model, the figures of its evaluation, or the "
    "counts. No sum beyond the study's public bounds and the noise was used. Within these bounds "
)
INTEGRITY = (
    f"{_SPOILED}nobody can find wrong numbers, or the country that sent them, since masks hide "
    "what each sent."
)
INTEGRITY_BY_COUNTRY = (
    f"{_SPOILED}wrong numbers can be noticed only in the parts by country, as far as the noise "
    "allows. Nobody can prove which country sent them: a dishonest country can also change the "
    "part of another country."
)
OWN_SUMS_VISIBLE = (
    "Each country's own sum was visible to the coordinator, with noise only, as the agreement and "
    "every permit allow."
)
Sign = Callable[[bytes], bytes]


def integrity_sentence(task: Task) -> str:
    """Return what a reader must know about the trust in countries; part of every result."""
    return INTEGRITY_BY_COUNTRY if task.by_country else INTEGRITY


def has_figures_by_country(task: Task) -> bool:
    """Whether the task's table or evaluation has figures of each country by `by_country`."""
    if not task.by_country:
        return False
    if not isinstance(task, Training):
        return True  # a table with `by_country` counts by country, or it is refused
    subgroup = task.evaluation.subgroup if task.evaluation else None
    return subgroup is not None and subgroup.feature == COUNTRY


class ResultPart(BaseModel):
    """Which countries took part in a result.

    `countries` are in any part of it; `figures_over` are those in the sum behind the table or the
    evaluation. For a training, `rounds_opened` counts the rounds by their number of countries, and
    `left_out` counts by country the rounds without it. `rounds_void` counts the void rounds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    countries: tuple[str, ...]
    figures_over: tuple[str, ...] = ()
    rounds_opened: Mapping[int, Annotated[int, Field(ge=1)]] = {}
    left_out: Mapping[str, Annotated[int, Field(ge=1)]] = {}
    rounds_void: Annotated[int, Field(ge=0)] = 0

    @property
    def sentence(self) -> str:
        """The participation in plain words; empty if the result does not state it."""
        return " ".join(filter(None, (*self._training_sentences(), self._figures_sentence())))

    def _training_sentences(self) -> tuple[str, str]:
        sizes = sorted(self.rounds_opened.items(), reverse=True)
        rounds = " and ".join(
            f"{rounds} over {counted(size, 'country', 'countries')}" for size, rounds in sizes
        )
        outside = ", ".join(
            f"{named(country)} in {counted(rounds, 'round')}"
            for country, rounds in self.left_out.items()
        )
        return (
            f"Rounds of training: {rounds}." if rounds else "",
            f"Left out: {outside}." if outside else "",
        )

    def _figures_sentence(self) -> str:
        over = ", ".join(map(named, self.figures_over))
        return f"The figures are sums over {over}." if over else ""


class CohortCost(BaseModel):
    """What the count behind the cohort floor costs beside a study; see the agreement's field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epsilon: Annotated[float, Field(gt=0)]
    delta: Annotated[float, Field(gt=0, lt=1)]

    def sentence(self) -> str:
        """Return the cost in one sentence of a privacy statement."""
        return (
            f"The count of the cohort costs ε = {exact(self.epsilon)}, δ = {exact(self.delta)} "
            "more in each country, once for all studies of the same register, population and "
            "version of the records."
        )


class Result(ResultPart):
    """The result of a study, with every figure that a reader needs to judge it.

    ε and δ are those of the run's reserved schedule, evaluation included; `cohort_count` is what
    the count of the cohort costs beside it, if the agreement states that. They hold for each
    patient against the coordinator with `colluding` countries, given the noise of `honest`
    contributions. `baselines` says which countries a model with `by_country` has a baseline of, and
    what it uses for others. `mechanisms` and `accounting` are the schedule and how its costs add
    up, from which ε can be computed again. `integrity` says what a dishonest country can do to the
    result. Results of an earlier version do not have these.
    """

    kind: Literal["result"] = "result"
    schema_version: Literal[1] = 1
    study_id: str
    study: Digest
    agreement: Digest
    run: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    title: str
    purpose: str
    recipients: tuple[str, ...]
    roster_size: Annotated[int, Field(ge=1)]
    honest: Annotated[int, Field(ge=1)]
    colluding: Annotated[int, Field(ge=0)]
    epsilon: Annotated[float, Field(gt=0)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    cohort_count: CohortCost | None = None
    accounting: Literal[1, 2] = 1
    mechanisms: tuple[Mechanism, ...] = ()
    task: Task
    features: tuple[Feature, ...]
    coordinates: tuple[str, ...] = ()
    model: Digest | None = None
    baselines: CountryBaselines | None = Field(default=None, exclude_if=lambda each: each is None)
    evaluation: Annotated[Mapping[str, Any] | None, EVALUATION] = None
    table: Annotated[Mapping[str, Any] | None, TABLE] = None
    integrity: str = ""
    documents: DocumentVersions
    released: str
    keep_until: str
    signer: str
    signature: str = ""

    @model_validator(mode="after")
    def _baselines_fit(self) -> Self:
        if problem := baselines_problem(self.task, self.features, self.baselines):
            raise ValueError(problem)
        return self

    def signing_hash(self) -> bytes:
        """Return the hash that is signed: of every field that is set, except the signature.

        A field that an earlier version did not have is not set in its results.
        """
        body = self.model_dump(mode="json", exclude={"signature"}, exclude_unset=True)
        return labelled_hash(LABEL, canonical_json(body))

    def signed(self, sign: Sign) -> Self:
        """Return the result with every field set, and with its signature by `signer`."""
        complete = self.model_validate(self.model_dump(mode="json"))
        return complete.model_copy(update={"signature": sign(complete.signing_hash()).hex()})

    def require_cost(self) -> bool:
        """Return whether ε could be computed again. Raises ResultFault if it is more than stated.

        A result of an earlier version does not hold its schedule.
        """
        if self.honest + self.colluding > self.roster_size:
            raise ResultFault(
                "The result relies on more countries than there were",
                why=f"{counted(self.roster_size, 'country', 'countries')} were asked; it states "
                f"h = {self.honest} and c = {self.colluding}",
                fix="ask the coordinator for the study and its result",
            )
        if not self.mechanisms:
            return False
        if not self._is_priced():
            raise ResultFault(
                "The schedule of the result is not that of its task",
                why="so ε cannot be computed from it",
                fix="ask the coordinator for the study and its result",
            )
        cost = schedule_epsilon(self.mechanisms, self.accounting, self.honest, self.delta)
        if cost > self.epsilon * (1 + COST_TOLERANCE):
            raise ResultFault(
                f"The result states ε = {exact(self.epsilon)}, less than its releases cost",
                why=f"its schedule costs ε = {rounded_up(cost)} at δ = {exact(self.delta)}",
                fix="ask the coordinator for the study and its result",
            )
        return True

    def _is_priced(self) -> bool:
        """Whether the schedule is of the task; the agreement may pay for the cohort's count."""
        templates = self.task.schedule(self.features)
        if self.cohort_count is not None:
            templates = tuple(each for each in templates if each.phase != COHORT_FLOOR)
        same = len(templates) == len(self.mechanisms)
        return same and all(map(same_but_noise, templates, self.mechanisms))

    def _figures_sentence(self) -> str:
        if not self.figures_over or not has_figures_by_country(self.task):
            return super()._figures_sentence()
        over = ", ".join(map(named, self.figures_over))
        return (
            f"The figures are from {over}: those by country are each from one country alone, any "
            "others are sums over all of them."
        )

    @property
    def statement(self) -> str:
        """The privacy statement in one plain paragraph."""
        evaluated = isinstance(self.task, Training) and self.task.evaluation is not None
        included = ", evaluation included" if evaluated else ""
        statement = (
            f"Each patient is protected with ε = {exact(self.epsilon)}, δ = {exact(self.delta)} "
            f"over this run of the study{included}, against the coordinator and up to "
            f"{counted(self.colluding, 'colluding country', 'colluding countries')} "
            f"(c = {self.colluding}). n = {self.roster_size} countries were asked; the noise "
            f"relies on h = {self.honest} honest contributions. "
        )
        count = f"{self.cohort_count.sentence()} " if self.cohort_count else ""
        visible = f"{OWN_SUMS_VISIBLE} " if self.task.by_country else ""
        statement = f"{statement}{count}{visible}{self.sentence}".rstrip()
        local = self.task.local if isinstance(self.task, Training) else None
        if local is None:
            return statement
        return f"{statement} Local mode: {local.sentence(self.honest)}"


def write_result(
    folder: Path, result: Result, sign: Sign, weights: FloatArray | None = None
) -> Result:
    """Write the files of a result; return the signed result.

    `weights` is the flat model of a training task; it is written as named tensors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if weights is not None and isinstance(result.task, Training):
        data = save(split(weights, result.task.tensors(result.features)))
        write_atomic(folder / MODEL_FILE, data)
        result = result.model_copy(update={"model": digest(data)})
    signed = result.signed(sign)
    text = json.dumps(signed.model_dump(mode="json"), indent=2, ensure_ascii=False)
    write_atomic(folder / RESULT_FILE, f"{text}\n".encode())
    return signed


def read_result(folder: Path, trusted: Sequence[VerifyKey]) -> Result:
    """Read the result in a folder, and verify its signature by one of the trusted keys.

    Raises ResultFault if it is unreadable, altered, or signed with another key.
    """
    return verified_result(read_result_file(folder), folder, trusted)


def read_result_file(folder: Path) -> bytes:
    """Return the bytes of the signed `result.json` in a folder. Raises ResultFault."""
    return _read(folder / RESULT_FILE)


def verified_result(
    data: bytes, folder: Path, trusted: Sequence[VerifyKey], *, listed: bool = False
) -> Result:
    """Return the result in these bytes of a folder's `result.json`; raises as `read_result`.

    `listed`: the coordinator's documents, verified with its key in force, list exactly these bytes.
    Then the key that signed them counts, too, though the coordinator may have replaced it since.
    """
    result = _parsed(data, folder)
    if not listed and result.signer not in {key.to_text() for key in trusted}:
        raise _untrusted(folder, f"its signer {result.signer} is not trusted here")
    try:
        signer, signature = VerifyKey.from_text(result.signer), bytes.fromhex(result.signature)
        signer.verify(signature, result.signing_hash())
    except (KeyFault, ValueError) as error:
        raise _untrusted(folder, "its signature does not verify, so it was altered") from error
    return result


def holds_result_of(folder: Path, run: str, signer: VerifyKey) -> bool:
    """Return whether a folder contains the signed, complete result of this run."""
    try:
        result = read_result(folder, [signer])
        if result.model is not None:
            read_weights(folder, result)
    except ResultFault:
        return False
    return result.run == run


def read_weights(folder: Path, result: Result) -> FloatArray:
    """Return the flat float64 model of a verified result. Raises ResultFault if altered."""
    if not isinstance(result.task, Training) or result.model is None:
        raise ResultFault(
            f"The result in {folder} has no model",
            why=f"its task is {result.task.kind}",
            fix="name the folder of a training study",
        )
    data = _read(folder / MODEL_FILE)
    if digest(data) != result.model:
        raise _untrusted(
            folder, f"the file {MODEL_FILE} is not the model that {RESULT_FILE} was signed for"
        )
    return _weights(data, result.task.tensors(result.features), folder)


def _weights(data: bytes, tensors: Sequence[Tensor], folder: Path) -> FloatArray:
    try:
        parts = load(data)
    except SafetensorError as error:
        raise _untrusted(folder, f"the file {MODEL_FILE} contains no weights") from error
    shapes = {name: (part.shape, part.dtype) for name, part in parts.items()}
    if shapes != {tensor.name: (tensor.shape, np.float64) for tensor in tensors}:
        raise _untrusted(folder, f"the file {MODEL_FILE} has other parts than the study's model")
    return np.concatenate([parts[tensor.name].reshape(-1) for tensor in tensors])


def _parsed(data: bytes, folder: Path) -> Result:
    try:
        return Result.model_validate_json(data)
    except ValidationError as error:
        why = first_problem(Result, error)
        raise _untrusted(
            folder, f"the file {RESULT_FILE} is not in the form of a result: {why}"
        ) from error


def _read(path: Path) -> bytes:
    try:
        return read_bounded(path, LARGEST_FILE)
    except ValueError:
        larger = f"the file {path.name} is larger than {LARGEST_FILE} bytes"
        raise _untrusted(path.parent, larger) from None
    except OSError as error:
        raise ResultFault(
            f"The file {path} cannot be read",
            why=reason_of(error),
            fix="name the folder that contains result.json",
        ) from error


def _untrusted(folder: Path, why: str) -> ResultFault:
    return ResultFault(
        f"The result in {folder} cannot be trusted",
        why=why,
        fix="get the result again from the coordinator",
    )
