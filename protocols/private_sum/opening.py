"""The coordinator's side of one round: collect contributions and answers, open the sum or none.

Order: `contribute_request` to every country, `take_contribution` from each, `answer_request` to
every country, `take_answer` from at least t, `open`. Masked words are added up as they come.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.errors import ProtocolFault
from protocols.lattice import unpack
from protocols.private_sum import shares
from protocols.private_sum.context import RoundTerms
from protocols.private_sum.contribution import read_head, seed_key, words_digest
from protocols.private_sum.desk import Desk, keep
from protocols.private_sum.masking import WORDS_DTYPE, Masker
from protocols.private_sum.messages import parcels, read_reply, unpack_parcels
from protocols.private_sum.setup import LARGEST_BODY
from protocols.proto.round_pb2 import (
    PHASE_ANSWER,
    PHASE_CONTRIBUTE,
    Answer,
    AnswerRequest,
    ContributeRequest,
    Contribution,
    ContributionHead,
    RequestBody,
    Signed,
)
from protocols.signed import COORDINATOR, ROSTER, malformed, parse


@dataclass(frozen=True)
class OpenedSum:
    """Σ values + noise over `countries`, (d,) int64 lattice units; `variance` of the noise in it.

    `unopenable` pairs (holder, owner) whose share of the owner's seed was of no use. It names a
    disagreement, and not which of the two, or of those who passed it on, was wrong.
    """

    values: NDArray[np.int64]
    countries: tuple[str, ...]
    variance: int
    unopenable: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class VoidRound:
    """A round that opened nothing: why, and the countries that are known to be the cause."""

    reason: str
    missing: tuple[str, ...]


class CoordinatorRound:
    """One round of a run.

    `take_*` raise ProtocolFault naming the country, and Refusal with its code when it refused.
    """

    def __init__(
        self, desk: Desk, terms: RoundTerms, model: bytes, macs: Mapping[str, Mapping[str, bytes]]
    ) -> None:
        self._desk, self._terms, self._model, self._macs = desk, terms, model, macs
        self._masker = Masker(terms.words)
        self._sum = np.zeros(terms.words, np.uint64)
        self._heads: dict[str, Signed] = {}
        self._commitments: dict[str, ContributionHead] = {}
        self._sealed: dict[str, dict[str, bytes]] = {}
        self._answers: dict[str, dict[str, bytes]] = {}

    @property
    def terms(self) -> RoundTerms:
        """What the round is about."""
        return self._terms

    @property
    def contributed(self) -> tuple[str, ...]:
        """The countries whose contribution is here."""
        return tuple(sorted(self._heads))

    @property
    def answered(self) -> tuple[str, ...]:
        """The countries whose shares are here."""
        return tuple(sorted(self._answers))

    def contribute_request(self, country: str) -> bytes:
        """Return the request for a country's contribution."""
        macs = {one: to[country] for one, to in sorted(self._macs.items()) if one != country}
        content = ContributeRequest(
            round=self._terms.round_number,
            phase_kind=self._terms.phase_kind,
            confirmations=parcels(macs),
        )
        body = RequestBody(contribute=content)
        return self._desk.request(country, PHASE_CONTRIBUTE, self._terms.context, body, self._model)

    def take_contribution(self, country: str, reply: bytes) -> None:
        """Take a contribution and add it to the sum of masked words."""
        said = read_reply(reply, country, "contribution").contribution
        context = self._terms.context
        body = self._desk.open(said.head, country, PHASE_CONTRIBUTE, context, ROSTER)
        self._require_words(country, said, head := read_head(body, len(self._desk.peers)))
        others = [one for one in self._desk.terms.roster if one != country]
        sealed = unpack_parcels(said.shares, others)
        if country not in self._heads:
            self._sum += np.frombuffer(said.words, WORDS_DTYPE)
        keep(self._heads, country, said.head)
        self._commitments[country] = head
        self._sealed.setdefault(country, sealed)

    def answer_request(self, country: str) -> bytes:
        """Return the request for a country's shares. Raises ProtocolFault when one is missing.

        U is the roster: a round in which a country did not contribute is void.
        """
        self._desk.require_all(self._heads)
        roster = self._desk.terms.roster
        addressed = {one: self._sealed[one][country] for one in roster if one != country}
        content = AnswerRequest(
            round=self._terms.round_number,
            countries=roster,
            heads=[self._heads[one] for one in roster],
            shares=parcels(addressed),
        )
        body = RequestBody(answer=content)
        return self._desk.request(country, PHASE_ANSWER, self._terms.context, body)

    def take_answer(self, country: str, reply: bytes) -> None:
        """Take a country's shares."""
        signed = read_reply(reply, country, "answer").answer
        context = self._terms.context
        body = self._desk.open(signed, country, PHASE_ANSWER, context, COORDINATOR)
        answer = parse(Answer, body, LARGEST_BODY)
        about = [*(share.country for share in answer.shares), *answer.unopenable]
        if sorted(about) != list(self._desk.terms.roster):
            raise malformed(f"the answer of {country} is not about each country once")
        keep(self._answers, country, {share.country: share.content for share in answer.shares})

    def open(self) -> OpenedSum | VoidRound:
        """Open the sum with what is here, or say why nothing opens."""
        absent = self._absent()
        if absent:
            return VoidRound("a country did not contribute", absent)
        if len(self._answers) < self._desk.terms.threshold:
            silent = (one for one in self._desk.terms.roster if one not in self._answers)
            return VoidRound("too few countries answered", tuple(silent))
        usable = {owner: self._usable(owner) for owner in self._desk.terms.roster}
        seeds = {owner: self._seed(owner, held) for owner, held in usable.items()}
        lost = tuple(owner for owner, seed in seeds.items() if seed is None)
        if lost:
            return VoidRound("the shares of a country's seed do not open it", lost)
        return self._opened({one: seed for one, seed in seeds.items() if seed}, usable)

    def _require_words(self, country: str, said: Contribution, head: ContributionHead) -> None:
        if len(said.words) != 8 * self._terms.words:
            raise malformed(f"{country} sent a vector of another length than the round's")
        if words_digest(self._terms, country, said.words) != head.words_digest:
            raise ProtocolFault(f"The words of {country} are not those it signed")

    def _absent(self) -> tuple[str, ...]:
        return tuple(one for one in self._desk.terms.roster if one not in self._heads)

    def _usable(self, owner: str) -> dict[str, bytes]:
        """Return the shares of the owner's seed that are what it committed to, by holder."""
        commitments = self._commitments[owner].share_commitments
        signed = dict(zip(self._desk.terms.roster, commitments, strict=True))
        context = self._terms.context
        return {
            holder: given[owner]
            for holder, given in sorted(self._answers.items())
            if owner in given
            and shares.commit(context, owner, holder, given[owner]) == signed[holder]
        }

    def _seed(self, owner: str, usable: Mapping[str, bytes]) -> bytes | None:
        terms = self._desk.terms
        if len(usable) < terms.threshold:
            return None
        chosen = sorted(usable)[: terms.threshold]
        try:
            seed = shares.combine({terms.roster.index(one) + 1: usable[one] for one in chosen})
        except ProtocolFault:
            return None
        signed = self._commitments[owner].seed_commitment
        made = shares.commit(self._terms.context, owner, ROSTER, seed)
        return seed if signed == made else None

    def _opened(
        self, seeds: Mapping[str, bytes], usable: Mapping[str, Mapping[str, bytes]]
    ) -> OpenedSum | VoidRound:
        words = self._sum.copy()
        for owner, seed in seeds.items():
            self._masker.subtract(seed_key(self._terms, owner, seed), words)
        dimension = self._terms.mechanism.dimension
        opened = unpack(words, self._terms.lane_bits)
        if opened[dimension:].any():
            return VoidRound("the check coordinates of the sum are not zero", ())
        pairs = ((holder, owner) for holder in self.answered for owner in seeds)
        return OpenedSum(
            values=opened[:dimension],
            countries=self._desk.terms.roster,
            variance=len(seeds) * self._terms.mechanism.noise_std**2,
            unopenable=tuple(pair for pair in pairs if pair[0] not in usable[pair[1]]),
        )
