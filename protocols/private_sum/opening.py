"""The coordinator's side of one round: collect contributions and answers, open the sum or none.

Order: `contribute_request` and `take_contribution` for every country, then `close`, which names U,
the countries whose sum is to be opened; asking for more closes the round too. Where U is smaller
than the roster, `agree_request` and `take_assent` for each of U. Then `answer_request` and
`take_answer` for each of U, and `open`.
Masked words are added up as they come.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from keys.derive import HASH_BYTES
from protocols.errors import ProtocolFault
from protocols.lattice import unpack
from protocols.private_sum import shares
from protocols.private_sum.assent import assent_body
from protocols.private_sum.context import RoundTerms
from protocols.private_sum.contribution import commitments_digest, read_head, seed_key, words_digest
from protocols.private_sum.desk import Desk, keep
from protocols.private_sum.masking import KEY_BYTES, WORDS_DTYPE, Masker
from protocols.private_sum.messages import parcels, read_reply, unpack_parcels
from protocols.private_sum.setup import LARGEST_BODY
from protocols.proto.round_pb2 import (
    PHASE_AGREE,
    PHASE_ANSWER,
    PHASE_CONTRIBUTE,
    AgreeRequest,
    Answer,
    AnswerRequest,
    ContributeRequest,
    ContributionHead,
    Parcel,
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


@dataclass(frozen=True)
class _Given:
    """What a country answered: its shares by owner, and its mask keys by country outside U."""

    shares: Mapping[str, bytes]
    masks: Mapping[str, bytes]


class CoordinatorRound:
    """One round of a run.

    `take_*` raise ProtocolFault naming the country, and Refusal with its code when it refused.
    """

    def __init__(
        self,
        desk: Desk,
        terms: RoundTerms,
        model: bytes,
        confirmations: Mapping[str, Sequence[Parcel]],
        asked: tuple[str, ...],
    ) -> None:
        """`confirmations` are the MACs for each country, from all the others.

        `asked` are the roster, or those of them that a sum was to be opened over before.
        """
        self._desk, self._terms, self._model = desk, terms, model
        self._confirmations = confirmations
        self._asked = asked
        self._places = {one: place for place, one in enumerate(self._roster, start=1)}
        self._chosen: tuple[str, ...] | None = None
        self._masker = Masker(terms.words)
        self._sum = np.zeros(terms.words, np.uint64)
        self._heads: dict[str, Signed] = {}
        self._signed: dict[str, ContributionHead] = {}
        self._commitments: dict[str, bytes] = {}
        self._sealed: dict[str, dict[str, bytes]] = {}
        self._assents: dict[str, Signed] = {}
        self._answers: dict[str, _Given] = {}

    @property
    def terms(self) -> RoundTerms:
        """What the round is about."""
        return self._terms

    @property
    def asked(self) -> tuple[str, ...]:
        """The countries that are asked to contribute."""
        return self._asked

    @property
    def contributed(self) -> tuple[str, ...]:
        """The countries whose contribution is here."""
        return tuple(sorted(self._heads))

    @property
    def agreed(self) -> tuple[str, ...]:
        """The countries that signed U."""
        return tuple(sorted(self._assents))

    @property
    def answered(self) -> tuple[str, ...]:
        """The countries whose shares are here."""
        return tuple(sorted(self._answers))

    @property
    def smaller(self) -> bool:
        """Whether the sum to be opened is one of fewer countries than the roster."""
        return self._set != self._roster

    @property
    def openable(self) -> bool:
        """Whether enough countries have contributed for their sum to be opened."""
        return self._shortfall(self._set) is None

    @property
    def _set(self) -> tuple[str, ...]:
        return self.contributed if self._chosen is None else self._chosen

    @property
    def _roster(self) -> tuple[str, ...]:
        return self._desk.terms.roster

    def contribute_request(self, country: str) -> bytes:
        """Return the request for a country's contribution."""
        content = ContributeRequest(
            round=self._terms.round_number,
            phase_kind=self._terms.phase_kind,
            confirmations=self._confirmations[country],
        )
        body = RequestBody(contribute=content)
        return self._desk.request(country, PHASE_CONTRIBUTE, self._terms.context, body, self._model)

    def take_contribution(self, country: str, reply: bytes) -> None:
        """Take a contribution and add it to the sum of masked words, while the round is open."""
        said = read_reply(reply, country, "contribution").contribution
        body = self._desk.open(said.head, country, PHASE_CONTRIBUTE, self._terms.context, ROSTER)
        words = said.words  # a copy of megabytes each time that it is read
        self._require_words(country, words, head := read_head(body))
        self._require_commitments(country, commitments := said.commitments, head)
        sealed = unpack_parcels(said.shares, [one for one in self._roster if one != country])
        self._require_awaited(country)
        if country not in self._heads:
            self._sum += np.frombuffer(words, WORDS_DTYPE)
        keep(self._heads, country, said.head)
        self._signed[country], self._commitments[country] = head, commitments
        self._sealed.setdefault(country, sealed)

    def close(self) -> tuple[str, ...]:
        """Return U: those who have contributed by now. It is named once, and stays."""
        self._chosen = self._set
        return self._chosen

    def agree_request(self, country: str) -> bytes:
        """Return the request to sign U, where it is smaller than the roster."""
        content = AgreeRequest(round=self._terms.round_number, countries=self._member(country))
        body = RequestBody(agree=content)
        return self._desk.request(country, PHASE_AGREE, self._terms.context, body)

    def take_assent(self, country: str, reply: bytes) -> None:
        """Take a country's signature on U."""
        signed = read_reply(reply, country, "assent").assent
        body = self._desk.open(signed, country, PHASE_AGREE, self._terms.context, ROSTER)
        if body != assent_body(self._terms.round_number, self._named(country)):
            raise malformed(f"{country} agreed on other countries than it was asked to")
        keep(self._assents, country, signed)

    def answer_request(self, country: str) -> bytes:
        """Return the request for a country's shares. Raises ProtocolFault until t have agreed."""
        chosen = self._member(country)
        self._require_agreed()
        addressed = {one: self._sealed[one][country] for one in chosen if one != country}
        body = RequestBody(answer=self._shown_to_all)
        body.answer.shares.extend(parcels(addressed))
        body.answer.assents.extend(self._assents[one] for one in self.agreed)
        return self._desk.request(country, PHASE_ANSWER, self._terms.context, body)

    def take_answer(self, country: str, reply: bytes) -> None:
        """Take a country's shares, and its mask keys with those outside U."""
        signed = read_reply(reply, country, "answer").answer
        chosen = self._named(country)
        context = self._terms.context
        body = self._desk.open(signed, country, PHASE_ANSWER, context, COORDINATOR)
        answer = parse(Answer, body, LARGEST_BODY)
        shared = [(share.country, share.content) for share in answer.shares]
        about = [*(owner for owner, _ in shared), *answer.unopenable]
        if sorted(about) != list(chosen):
            raise malformed(f"the answer of {country} is not about each country once")
        given = dict(shared)
        masks = unpack_parcels(answer.masks, [one for one in self._roster if one not in chosen])
        if any(len(key) != KEY_BYTES for key in masks.values()):
            raise malformed(f"a mask key of {country} has the wrong length")
        keep(self._answers, country, _Given(given, masks))

    def open(self) -> OpenedSum | VoidRound:
        """Return the sum with what is here, or why nothing opens; more may come afterwards."""
        chosen = self._set
        if void := self._shortfall(chosen) or self._silence(chosen):
            return void
        usable = {owner: self._usable(owner) for owner in chosen}
        seeds = {owner: self._seed(owner, held) for owner, held in usable.items()}
        lost = tuple(owner for owner, seed in seeds.items() if seed is None)
        if lost:
            return VoidRound("the shares of a country's seed do not open it", lost)
        return self._opened({one: seed for one, seed in seeds.items() if seed}, usable)

    @cached_property
    def _shown_to_all(self) -> AnswerRequest:
        """What every request for shares holds alike, once the round is closed."""
        return AnswerRequest(
            round=self._terms.round_number,
            countries=self._chosen,
            heads=[self._heads[one] for one in self._chosen or ()],
        )

    def _member(self, country: str) -> tuple[str, ...]:
        """Return U, of which the country is one. Raises ProtocolFault."""
        chosen = self.close()
        if country not in chosen:
            raise ProtocolFault(f"The round was closed without {country}")
        return chosen

    def _named(self, country: str) -> tuple[str, ...]:
        """Return U, which the country was asked about; a stray reply does not close the round."""
        if self._chosen is None:
            raise ProtocolFault(f"{country} replies to what it was not asked yet")
        return self._member(country)

    def _require_agreed(self) -> None:
        if self.smaller and len(self._assents) < self._desk.terms.threshold:
            raise ProtocolFault(
                "Nobody answers for fewer countries than the roster yet",
                why=f"{len(self._assents)} have agreed, {self._desk.terms.threshold} must",
            )

    def _require_awaited(self, country: str) -> None:
        if country not in self._asked:
            raise ProtocolFault(f"{country} was not asked to contribute to this round")
        if self._chosen is not None and country not in self._chosen:
            raise ProtocolFault(f"The contribution of {country} came after the round was closed")

    def _require_words(self, country: str, words: bytes, head: ContributionHead) -> None:
        if len(words) != 8 * self._terms.words:
            raise malformed(f"{country} sent a vector of another length than the round's")
        if words_digest(self._terms, country, words) != head.words_digest:
            raise ProtocolFault(f"The words of {country} are not those it signed")

    def _require_commitments(self, country: str, given: bytes, head: ContributionHead) -> None:
        if commitments_digest(self._terms.context, country, given) != head.commitments_digest:
            raise ProtocolFault(f"The commitments of {country} are not those it signed")
        if len(given) != HASH_BYTES * len(self._roster):
            raise malformed(f"{country} does not commit to one share for each country")

    def _shortfall(self, chosen: tuple[str, ...]) -> VoidRound | None:
        """Say why the sum over these cannot be opened, whoever answers."""
        absent = tuple(one for one in self._asked if one not in chosen)
        if absent and self._asked != self._roster:
            return VoidRound("a country that the others agreed on did not contribute", absent)
        if len(chosen) < self._desk.terms.smallest_set:
            return VoidRound("too few countries contributed", absent)
        return None

    def _silence(self, chosen: tuple[str, ...]) -> VoidRound | None:
        """Say why it cannot be opened with the signatures and answers that are here."""
        threshold = self._desk.terms.threshold
        if self.smaller and len(self._assents) < threshold:
            silent = tuple(one for one in chosen if one not in self._assents)
            return VoidRound("too few countries agreed on those that are left", silent)
        silent = tuple(one for one in chosen if one not in self._answers)
        if len(self._answers) < (len(chosen) if self.smaller else threshold):
            return VoidRound("too few countries answered", silent)
        return None

    def _usable(self, owner: str) -> dict[str, bytes]:
        """Return the shares of the owner's seed that are what it committed to, by holder."""
        all_of_it = self._commitments[owner]
        signed = {
            one: all_of_it[HASH_BYTES * (place - 1) : HASH_BYTES * place]
            for one, place in self._places.items()
        }
        given = {
            holder: answer.shares[owner]
            for holder, answer in self._answers.items()
            if owner in answer.shares
        }
        made = shares.commitments(self._terms.context, owner, given)
        return {holder: share for holder, share in given.items() if made[holder] == signed[holder]}

    def _seed(self, owner: str, usable: Mapping[str, bytes]) -> bytes | None:
        terms = self._desk.terms
        if len(usable) < terms.threshold:
            return None
        chosen = sorted(usable)[: terms.threshold]
        try:
            seed = shares.combine({self._places[one]: usable[one] for one in chosen})
        except ProtocolFault:
            return None
        made = shares.commit(self._terms.context, owner, ROSTER, seed)
        return seed if made == self._signed[owner].seed_commitment else None

    def _opened(
        self, seeds: Mapping[str, bytes], usable: Mapping[str, Mapping[str, bytes]]
    ) -> OpenedSum | VoidRound:
        words = self._sum.copy()
        for owner, seed in seeds.items():
            self._masker.subtract(seed_key(self._terms, owner, seed), words)
        if self.smaller:
            self._unmask_outside(tuple(seeds), words)
        dimension = self._terms.mechanism.dimension
        opened = unpack(words, self._terms.lane_bits)
        if opened[dimension:].any():
            return VoidRound("the check coordinates of the sum are not zero", ())
        pairs = ((holder, owner) for holder in self.answered for owner in seeds)
        return OpenedSum(
            values=opened[:dimension],
            countries=tuple(seeds),
            variance=len(seeds) * self._terms.mechanism.noise_std**2,
            unopenable=tuple(pair for pair in pairs if pair[0] not in usable[pair[1]]),
        )

    def _unmask_outside(self, chosen: Sequence[str], words: NDArray[np.uint64]) -> None:
        """Take out the masks between those of U and those outside it: nobody else cancels them."""
        for country in chosen:
            for outside, key in self._answers[country].masks.items():
                remove = self._masker.subtract if outside > country else self._masker.add
                remove(key, words)
