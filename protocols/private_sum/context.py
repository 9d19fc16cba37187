"""The terms of a run and of a round: the values that every key, seal and signature is bound to.

A country builds them from its own documents. Two parties with different documents, rosters or
models get different contexts, so their messages do not verify and their masks do not cancel.
"""

from dataclasses import dataclass
from functools import cached_property

from keys.derive import frame, labelled_hash
from protocols.errors import ProtocolFault, ReasonCode, Refusal
from protocols.numerics.mechanism import CHECK_COORDINATES, Mechanism
from protocols.numerics.packing import words_for
from protocols.wire.document_versions import COUNTRY_PATTERN, LARGEST_ROSTER
from protocols.wire.encoding import DIGEST_PATTERN, canonical_json

RUN_ID_BYTES = 16
LARGEST_ROUND = 1_000_000
SMALLEST_HONEST = 2
PERMITTED_MINIMUM = "permit/minimum-countries"
"""The clause that refuses a run, or a set, of fewer countries than a permit demands."""
RUN_LABEL = "pratique/run/v2"
ROUND_LABEL = "pratique/round/v2"


def share_threshold(countries: int, colluding: int) -> int:
    """Return t, the shares that open a seed: ⌊(n + c)/2⌋ + 1."""
    return (countries + colluding) // 2 + 1


@dataclass(frozen=True)
class RunTerms:
    """The terms of one run of one study, as one party reads them from its documents.

    `agreement` and `study` are digests, `run_id` 16 random bytes, `roster` the sorted countries;
    `colluding` (c), `honest` (h) and `smallest_countries` come from the agreement, `task_kind`
    and `mechanisms` (one for each phase kind) from the study. `permitted_minimum` is the smallest
    number of countries that the permit states: a country's own permit, or all permits for the
    coordinator. It is not part of the context, since countries may state different numbers. Raises
    Refusal: ROSTER if the roster is not valid, or smaller than h + c or one of these two numbers;
    MALFORMED if anything else is not valid, or if a sum may overflow a word.
    """

    agreement: str
    study: str
    run_id: bytes
    roster: tuple[str, ...]
    colluding: int
    honest: int
    task_kind: str
    mechanisms: tuple[Mechanism, ...]
    smallest_countries: int = 0
    permitted_minimum: int = 0

    def __post_init__(self) -> None:
        _check_names(self)
        _check_roster(self)
        _check_lanes(self)

    @property
    def minimum_countries(self) -> int:
        """The fewest countries whose contributions the agreement allows to open together."""
        return max(self.honest + self.colluding, self.smallest_countries)

    @property
    def threshold(self) -> int:
        """t: the shares that open a seed, ⌊(n + c)/2⌋ + 1."""
        return share_threshold(len(self.roster), self.colluding)

    @property
    def smallest_set(self) -> int:
        """The fewest countries over which a sum is opened: the largest of both minima and t."""
        return max(self.minimum_countries, self.permitted_minimum, self.threshold)

    @cached_property
    def context(self) -> bytes:
        """The 32-byte context of the set-up phases."""
        sizes = (
            len(self.roster),
            self.threshold,
            self.colluding,
            self.honest,
            self.minimum_countries,
        )
        schedule = [mechanism.model_dump(mode="json") for mechanism in self.mechanisms]
        return labelled_hash(
            RUN_LABEL,
            *(self.agreement.encode(), self.study.encode(), self.run_id),
            frame(*(country.encode() for country in self.roster)),
            *(size.to_bytes(8, "big") for size in sizes),
            self.task_kind.encode(),
            canonical_json(schedule),
        )

    def mechanism(self, phase_kind: str) -> Mechanism:
        """Return the mechanism of a phase kind. Raises Refusal TASK_UNKNOWN if there is none."""
        for mechanism in self.mechanisms:
            if mechanism.phase == phase_kind:
                return mechanism
        raise Refusal(
            ReasonCode.TASK_UNKNOWN,
            "A request names a kind of round that the study does not have",
            why="the study's signed schedule names every kind of round, and this one is not in it",
        )


@dataclass(frozen=True)
class RoundTerms:
    """The terms of one round: what is summed, by whom, with what noise, for which model or query.

    `bundles` has the digest of each roster country's set-up bundle, in roster order; `transcript`
    is the digest of the whole set-up; `model_digest` is that of the bytes in the request.
    """

    run: RunTerms
    bundles: tuple[bytes, ...]
    transcript: bytes
    round_number: int
    phase_kind: str
    model_digest: str

    def __post_init__(self) -> None:
        if not 1 <= self.round_number <= LARGEST_ROUND:
            raise Refusal(ReasonCode.MALFORMED, "A round number is out of range")
        if len(self.bundles) != len(self.run.roster):
            raise Refusal(ReasonCode.ROSTER, "The bundles are not those of the roster")

    @property
    def mechanism(self) -> Mechanism:
        """The mechanism of the round: its rounding and noise."""
        return self.run.mechanism(self.phase_kind)

    @cached_property
    def lane_bits(self) -> int:
        """k: how many bits each coordinate of the sum has."""
        return self.mechanism.lane_bits(len(self.run.roster))

    @cached_property
    def words(self) -> int:
        """How many 64-bit words a contribution has, check coordinates included."""
        return words_for(self.mechanism.dimension + CHECK_COORDINATES, self.lane_bits)

    @cached_property
    def context(self) -> bytes:
        """The 32-byte context that every key, seal and signature of the round is bound to."""
        mechanism = self.mechanism
        numbers = (self.round_number, mechanism.dimension, self.lane_bits, mechanism.scale)
        released = (mechanism.squared_sensitivity, mechanism.noise_std, self.words)
        named = (self.run.task_kind, self.phase_kind, self.model_digest)
        return labelled_hash(
            ROUND_LABEL,
            self.run.context,
            self.transcript,
            frame(
                *(frame(c.encode(), b) for c, b in zip(self.run.roster, self.bundles, strict=True))
            ),
            *(number.to_bytes(16, "big") for number in (*numbers, *released)),
            *(name.encode() for name in named),
            canonical_json(mechanism.model_dump(mode="json")),
        )


def _check_names(terms: RunTerms) -> None:
    digests = (terms.agreement, terms.study)
    kinds = [mechanism.phase for mechanism in terms.mechanisms]
    if (
        not all(DIGEST_PATTERN.fullmatch(value) for value in digests)
        or len(terms.run_id) != RUN_ID_BYTES
        or not kinds
        or len(set(kinds)) != len(kinds)
    ):
        raise Refusal(
            ReasonCode.MALFORMED,
            "The description of a run is not valid",
            why="it needs two digests, 16 bytes of run id and one mechanism for each kind of round",
        )


def _check_roster(terms: RunTerms) -> None:
    named = [c for c in terms.roster if COUNTRY_PATTERN.fullmatch(c)]
    if list(terms.roster) != sorted(set(named)) or len(named) > LARGEST_ROSTER:
        raise roster_refusal("it is not a sorted list of different country codes")
    if terms.honest < SMALLEST_HONEST or terms.colluding < 0:
        raise roster_refusal("the agreement must rely on two honest countries or more")
    if len(terms.roster) < terms.minimum_countries:
        raise roster_refusal(
            f"{len(terms.roster)} countries are fewer than the {terms.minimum_countries} needed"
        )
    if len(terms.roster) < terms.permitted_minimum:
        raise roster_refusal(
            f"{len(terms.roster)} countries are fewer than the {terms.permitted_minimum} that the "
            "permit demands",
            fix="do nothing; if you demanded more than `show` prints, approve the study again "
            "(`approve --reconsider`) with a smaller `--minimum-countries`",
            clause=PERMITTED_MINIMUM,
        )


def _check_lanes(terms: RunTerms) -> None:
    summed = [mechanism for mechanism in terms.mechanisms if mechanism.leaves_country]
    for mechanism in summed:
        try:
            mechanism.require_fitting_lane(len(terms.roster))
        except ProtocolFault as fault:
            code = ReasonCode.MALFORMED
            raise Refusal(code, fault.what, why=fault.why, fix=fault.fix) from None


def roster_refusal(why: str, *, fix: str = "", clause: str = "") -> Refusal:
    """Return the refusal of a list of countries."""
    what = "The countries of the run cannot be accepted"
    return Refusal(ReasonCode.ROSTER, what, why=why, fix=fix, clause=clause)
