"""The coordinator's side of one round: collect contributions and answers, open the sum or none.

Order: `contribute_request` and `take_contribution` for every country, then `close`, which names U,
the countries whose sum will be opened; asking for more closes the round too. If U is smaller than
the roster, `agree_request` and `take_assent` for each of U. Then `answer_request` and
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
from protocols.numerics.packing import unpack
from protocols.private_sum.context import RoundTerms
from protocols.private_sum.contribution import (
    LARGEST_HEAD,
    commitments_digest,
    read_head,
    seed_key,
    words_digest,
)
from protocols.private_sum.coordinator_view import CoordinatorView, keep
from protocols.private_sum.masking import WORDS_DTYPE, Masker
from protocols.private_sum.messages import (
    SEALED_BYTES,
    read_contribution,
    read_reply,
    versions_digest,
    with_parts,
    write_request,
)
from protocols.private_sum.set_agreement import assent_body
from protocols.private_sum.unmasking_answers import UnmaskingAnswers
from protocols.proto.round_pb2 import (
    PHASE_AGREE,
    PHASE_ANSWER,
    PHASE_CONTRIBUTE,
    AgreeRequest,
    AnswerRequest,
    ContributeRequest,
    Contribution,
    ContributionHead,
    Phase,
    RequestBody,
    Signed,
)
from protocols.proto.round_pb2 import DocumentVersions as DocumentVersionsMessage
from protocols.wire.document_versions import DocumentVersions
from protocols.wire.signed_message import ROSTER, malformed


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
    """A round that opened nothing: why, and the countries of which something is missing.

    It is not always their own doing: of a seed that does not come out, the owner is named.
    """

    reason: str
    missing: tuple[str, ...]


class CoordinatorRound:
    """One round of a run.

    `take_*` raise ProtocolFault naming the country, and Refusal with its code when it refused.
    """

    def __init__(
        self,
        view: CoordinatorView,
        terms: RoundTerms,
        model: bytes,
        macs: Mapping[str, bytes],
        asked: tuple[str, ...],
    ) -> None:
        """`macs` are those for each country, of all the others.

        `asked` is the roster, or the smaller set that an earlier attempt chose for this round.
        """
        self._view, self._terms, self._model = view, terms, model
        self._macs = macs
        self._asked = asked
        self._chosen: tuple[str, ...] | None = None
        self._masker = Masker(terms.words)
        self._sum = np.zeros(terms.words, np.uint64)
        self._heads: dict[str, Signed] = {}
        self._signed: dict[str, ContributionHead] = {}
        self._commitments: dict[str, bytes] = {}
        self._sealed: dict[str, bytes] = {}
        self._versions: dict[bytes, DocumentVersionsMessage] = {}
        self._assents: dict[str, Signed] = {}
        self._answers = UnmaskingAnswers(view, terms)

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
        return self._answers.countries

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
        return self._view.terms.roster

    def contribute_request(self, country: str) -> bytes:
        """Return the request for a country's contribution."""
        self._view.require_known(country)
        return with_parts(self._request_to_contribute, self._macs[country])

    def take_contribution(self, country: str, reply: bytes) -> None:
        """Take a contribution and add it to the sum of masked words, while the round is open."""
        said, words = read_contribution(reply, country, 8 * self._terms.words)
        body = self._view.open(said.head, country, PHASE_CONTRIBUTE, self._terms.context, ROSTER)
        self._require_signed(country, said, words, head := read_head(body))
        self._require_awaited(country)
        if country not in self._heads:
            self._sum += np.frombuffer(words, WORDS_DTYPE)
        keep(self._heads, country, said.head)
        self._signed[country], self._commitments[country] = head, said.commitments
        self._sealed.setdefault(country, said.shares)
        self._versions.setdefault(head.versions_digest, said.versions)

    def close(self) -> tuple[str, ...]:
        """Return U: those who have contributed by now. It is named once, and stays."""
        self._chosen = self._set
        return self._chosen

    def agree_request(self, country: str) -> bytes:
        """Return the request to sign U, where it is smaller than the roster."""
        self._member(country)
        return self._request_to_agree

    def take_assent(self, country: str, reply: bytes) -> None:
        """Take a country's signature on U."""
        signed = read_reply(reply, country, "assent").assent
        body = self._view.open(signed, country, PHASE_AGREE, self._terms.context, ROSTER)
        if body != assent_body(self._terms.round_number, self._named(country)):
            raise malformed(f"{country} agreed on other countries than it was asked to")
        keep(self._assents, country, signed)

    def answer_request(self, country: str) -> bytes:
        """Return the request for a country's shares. Raises ProtocolFault until t have agreed."""
        self._member(country)
        self._require_agreed()
        return with_parts(self._request_to_answer, self._sealed_for(country))

    def take_answer(self, country: str, reply: bytes) -> None:
        """Take a country's shares, and its mask keys with those outside U."""
        signed = read_reply(reply, country, "answer").answer
        self._answers.take(country, signed, self._named(country))

    def open(self) -> OpenedSum | VoidRound:
        """Return the sum with what is here, or why nothing opens; more may come afterwards."""
        chosen = self._set
        if void := self._shortfall(chosen) or self._silence(chosen):
            return void
        seeds = self._seeds(chosen)
        if len(seeds) < len(chosen):
            self._answers.sift({owner: self._commitments[owner] for owner in chosen})
            seeds |= self._seeds([owner for owner in chosen if owner not in seeds])
        return self._silence(chosen) or self._lost(chosen, seeds) or self._unmasked(seeds)

    @cached_property
    def _request_to_contribute(self) -> bytes:
        terms = self._terms
        content = ContributeRequest(round=terms.round_number, phase_kind=terms.phase_kind)
        asked = self._ask(PHASE_CONTRIBUTE, RequestBody(contribute=content))
        return write_request(asked, model=self._model)

    @cached_property
    def _request_to_agree(self) -> bytes:
        content = AgreeRequest(round=self._terms.round_number, countries=self._chosen)
        return write_request(self._ask(PHASE_AGREE, RequestBody(agree=content)))

    @cached_property
    def _request_to_answer(self) -> bytes:
        chosen = self._chosen or ()
        held = sorted({self._signed[one].versions_digest for one in chosen})
        content = AnswerRequest(
            round=self._terms.round_number,
            countries=chosen,
            heads=[self._heads[one] for one in chosen],
            versions=[self._versions[digest] for digest in held],
            assents=[self._assents[one] for one in self.agreed],
        )
        return write_request(self._ask(PHASE_ANSWER, RequestBody(answer=content)))

    def _ask(self, phase: Phase, content: RequestBody) -> Signed:
        return self._view.ask(phase, self._terms.context, content)

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

    @cached_property
    def _sealed_by_holder(self) -> NDArray[np.uint8]:
        """The sealed shares of U: (holders, owners, bytes), zeros where an owner is the holder."""
        size = len(self._roster)
        table = np.zeros((len(self._set), size, SEALED_BYTES), np.uint8)
        for row, owner in zip(table, self._set, strict=True):
            given = np.frombuffer(self._sealed[owner], np.uint8).reshape(-1, SEALED_BYTES)
            place = self._roster.index(owner)
            row[:place], row[place + 1 :] = given[:place], given[place:]
        return np.ascontiguousarray(table.swapaxes(0, 1))

    def _sealed_for(self, holder: str) -> bytes:
        """Return the shares that the others of U sealed for a holder."""
        given: NDArray[np.uint8] = self._sealed_by_holder[self._roster.index(holder)]
        own = self._set.index(holder)
        return given[:own].tobytes() + given[own + 1 :].tobytes()

    def _require_agreed(self) -> None:
        if self.smaller and len(self._assents) < self._view.terms.threshold:
            raise ProtocolFault(
                "Too few countries have agreed to continue without the missing ones",
                why=f"{len(self._assents)} have agreed, {self._view.terms.threshold} must",
            )

    def _require_awaited(self, country: str) -> None:
        if country not in self._asked:
            raise ProtocolFault(f"{country} was not asked to contribute to this round")
        if self._chosen is not None and country not in self._chosen:
            raise ProtocolFault(f"The contribution of {country} came after the round was closed")

    def _require_signed(
        self, country: str, said: Contribution, words: memoryview, head: ContributionHead
    ) -> None:
        """Return when all that travels beside a head is what it is signed for, and whole."""
        context, size = self._terms.context, len(self._roster)
        if words_digest(self._terms, country, words) != head.words_digest:
            raise ProtocolFault(f"The words of {country} are not those it signed")
        if commitments_digest(context, country, said.commitments) != head.commitments_digest:
            raise ProtocolFault(f"The commitments of {country} are not those it signed")
        if head.round != self._terms.round_number:
            raise ProtocolFault(f"{country} signed another round than the one it was asked for")
        self._require_versions(country, said, head)
        sizes = (len(said.commitments), len(said.shares))
        if sizes != (HASH_BYTES * size, SEALED_BYTES * (size - 1)):
            raise malformed(f"{country} does not share its seed with each country")

    def _require_versions(self, country: str, said: Contribution, head: ContributionHead) -> None:
        said.versions.DiscardUnknownFields()  # others are to read it, as any of them would
        if said.versions.ByteSize() > LARGEST_HEAD:
            raise malformed(f"{country} claims document versions of too many countries")
        if versions_digest(said.versions) != head.versions_digest:
            raise ProtocolFault(f"The document versions of {country} are not those it signed")
        if head.versions_digest not in self._versions:
            self._view.require_published(country, DocumentVersions.from_proto(said.versions))

    def _shortfall(self, chosen: tuple[str, ...]) -> VoidRound | None:
        """Say why the sum over these cannot be opened, whoever answers."""
        absent = tuple(one for one in self._asked if one not in chosen)
        if absent and self._asked != self._roster:
            return VoidRound("a country that the others agreed on did not contribute", absent)
        if len(chosen) < self._view.terms.smallest_set:
            return VoidRound("too few countries contributed", absent)
        return None

    def _silence(self, chosen: tuple[str, ...]) -> VoidRound | None:
        """Say why it cannot be opened with the signatures and answers that are here."""
        threshold = self._view.terms.threshold
        if self.smaller and len(self._assents) < threshold:
            silent = tuple(one for one in chosen if one not in self._assents)
            return VoidRound("too few countries agreed on those that are left", silent)
        answered = self.answered
        silent = tuple(one for one in chosen if one not in answered)
        if len(answered) < (len(chosen) if self.smaller else threshold):
            return VoidRound("too few countries answered", silent)
        return None

    def _seeds(self, chosen: Sequence[str]) -> dict[str, bytes]:
        """Return the seeds that the shares which are here make, by owner."""
        answers, heads = self._answers, self._signed
        made = {owner: answers.seed(owner, heads[owner].seed_commitment) for owner in chosen}
        return {owner: seed for owner, seed in made.items() if seed is not None}

    def _lost(self, chosen: Sequence[str], seeds: Mapping[str, bytes]) -> VoidRound | None:
        lost = tuple(one for one in chosen if one not in seeds)
        return VoidRound("the shares of a country's seed do not open it", lost) if lost else None

    def _unmasked(self, seeds: Mapping[str, bytes]) -> OpenedSum | VoidRound:
        words = self._sum.copy()
        for owner, seed in seeds.items():
            self._masker.subtract(seed_key(self._terms, owner, seed), words)
        if self.smaller:
            self._unmask_outside(tuple(seeds), words)
        return self._opened(tuple(sorted(seeds)), unpack(words, self._terms.lane_bits))

    def _opened(self, chosen: tuple[str, ...], opened: NDArray[np.int64]) -> OpenedSum | VoidRound:
        dimension = self._terms.mechanism.dimension
        if opened[dimension:].any():
            return VoidRound("the check coordinates of the sum are not zero", ())
        return OpenedSum(
            values=opened[:dimension],
            countries=chosen,
            variance=len(chosen) * self._terms.mechanism.noise_std**2,
            unopenable=self._answers.unopenable(chosen),
        )

    def _unmask_outside(self, chosen: Sequence[str], words: NDArray[np.uint64]) -> None:
        """Take out the masks between those of U and those outside it: nobody else cancels them."""
        for country in chosen:
            for outside, key in self._answers.masks(country).items():
                remove = self._masker.subtract if outside > country else self._masker.add
                remove(key, words)
