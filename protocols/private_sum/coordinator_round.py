"""The coordinator's side of one round: collects contributions and answers, and opens the sum.

Order: `contribute_request` and `take_contribution` for every country, then `close`, which fixes U,
the countries whose sum will be opened (`agree_request` and `answer_request` close the round too).
If U is smaller than the roster, `agree_request` and `take_assent` for each of U. Then
`answer_request` and `take_answer` for each of U, and `open`. Masked words are added as they arrive.
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
    MAX_HEAD_BYTES,
    commitments_digest,
    read_head,
    seed_key,
    words_digest,
)
from protocols.private_sum.coordinator_view import CoordinatorView, keep
from protocols.private_sum.dealt_shares import (
    commitments_for,
    read_dealt,
    sealed_by_holder,
)
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
from protocols.private_sum.share_faults import ShareFaults, judge
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

    `unopenable` are the pairs (holder, owner) whose share of the owner's seed was unusable;
    `CoordinatorRound.share_faults` says what that shows about each of the two.
    """

    values: NDArray[np.int64]
    countries: tuple[str, ...]
    variance: int
    unopenable: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class VoidRound:
    """A round that opened no sum: why, and the countries from which something is missing.

    If a seed cannot be recovered, they are those at fault, as far as signatures show it.
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
        """Begin a round. `macs` has, for each country, the MACs of all the others.

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
        """The terms of the round."""
        return self._terms

    @property
    def asked(self) -> tuple[str, ...]:
        """The countries that are asked to contribute."""
        return self._asked

    @property
    def contributed(self) -> tuple[str, ...]:
        """The countries whose contribution has arrived."""
        return tuple(sorted(self._heads))

    @property
    def agreed(self) -> tuple[str, ...]:
        """The countries that signed U."""
        return tuple(sorted(self._assents))

    @property
    def answered(self) -> tuple[str, ...]:
        """The countries whose shares have arrived."""
        return self._answers.countries

    @property
    def share_faults(self) -> ShareFaults:
        """Who is at fault for the unusable shares that are known, as far as signatures show it."""
        marks = {owner: self._signed[owner].seed_commitment for owner in self._set}
        reports, inconsistent = self._answers.reports(marks), self._answers.inconsistent(marks)
        if not reports and not inconsistent:
            return ShareFaults({}, ())
        dealt = read_dealt(self._roster, marks, self._commitments, self._sealed)
        colluding = self._view.terms.colluding
        return judge(self._terms.context, reports, dealt, inconsistent, colluding)

    @property
    def smaller(self) -> bool:
        """Whether the sum to be opened is over fewer countries than the roster."""
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
        """Check a contribution, and add it to the sum of masked words while the round is open."""
        contribution, words = read_contribution(reply, country, 8 * self._terms.words)
        body = self._view.open(
            contribution.head, country, PHASE_CONTRIBUTE, self._terms.context, ROSTER
        )
        self._require_signed(country, contribution, words, head := read_head(body))
        self._require_awaited(country)
        if country not in self._heads:
            self._sum += np.frombuffer(words, WORDS_DTYPE)
        keep(self._heads, country, contribution.head)
        self._signed[country], self._commitments[country] = head, contribution.commitments
        self._sealed.setdefault(country, contribution.shares)
        self._versions.setdefault(head.versions_digest, contribution.versions)

    def close(self) -> tuple[str, ...]:
        """Close the round, and return U: the countries that have contributed. It never changes."""
        self._chosen = self._set
        return self._chosen

    def agree_request(self, country: str) -> bytes:
        """Return the request to sign U, if it is smaller than the roster."""
        self._member(country)
        return self._request_to_agree

    def take_assent(self, country: str, reply: bytes) -> None:
        """Check and store a country's signature on U."""
        signed = read_reply(reply, country, "assent").assent
        body = self._view.open(signed, country, PHASE_AGREE, self._terms.context, ROSTER)
        if body != assent_body(self._terms.round_number, self._named(country)):
            raise malformed(f"{country} agreed on other countries than the request names")
        keep(self._assents, country, signed)

    def answer_request(self, country: str) -> bytes:
        """Return the request for a country's shares. Raises ProtocolFault until t have agreed."""
        self._member(country)
        self._require_agreed()
        return with_parts(
            self._request_to_answer, self._sealed_for(country), self._commitments_for(country)
        )

    def take_answer(self, country: str, reply: bytes) -> None:
        """Check and store a country's shares, and its mask keys with countries outside U."""
        signed = read_reply(reply, country, "answer").answer
        self._answers.take(country, signed, self._named(country))

    def open(self) -> OpenedSum | VoidRound:
        """Return the sum, or why it cannot be opened yet; further replies may still arrive."""
        chosen = self._set
        if void := self._shortfall(chosen) or self._missing_replies(chosen):
            return void
        seeds = self._seeds(chosen)
        if len(seeds) < len(chosen):
            self._answers.sift({owner: self._commitments[owner] for owner in chosen})
            seeds |= self._seeds([owner for owner in chosen if owner not in seeds])
        missing = self._missing_replies(chosen) or self._missing_seeds(chosen, seeds)
        return missing or self._unmasked(seeds)

    @cached_property
    def _request_to_contribute(self) -> bytes:
        terms = self._terms
        content = ContributeRequest(round=terms.round_number, phase_kind=terms.phase_kind)
        signed = self._ask(PHASE_CONTRIBUTE, RequestBody(contribute=content))
        return write_request(signed, model=self._model)

    @cached_property
    def _request_to_agree(self) -> bytes:
        content = AgreeRequest(round=self._terms.round_number, countries=self._chosen)
        return write_request(self._ask(PHASE_AGREE, RequestBody(agree=content)))

    @cached_property
    def _request_to_answer(self) -> bytes:
        chosen = self._chosen or ()
        digests = sorted({self._signed[country].versions_digest for country in chosen})
        content = AnswerRequest(
            round=self._terms.round_number,
            countries=chosen,
            heads=[self._heads[country] for country in chosen],
            versions=[self._versions[digest] for digest in digests],
            assents=[self._assents[country] for country in self.agreed],
        )
        return write_request(self._ask(PHASE_ANSWER, RequestBody(answer=content)))

    def _ask(self, phase: Phase, content: RequestBody) -> Signed:
        return self._view.ask(phase, self._terms.context, content)

    def _member(self, country: str) -> tuple[str, ...]:
        """Close the round and return U. Raises ProtocolFault if the country is not in it."""
        chosen = self.close()
        if country not in chosen:
            raise ProtocolFault(f"The round was closed without {country}")
        return chosen

    def _named(self, country: str) -> tuple[str, ...]:
        """Return U as named in a request; an unexpected reply does not close the round."""
        if self._chosen is None:
            raise ProtocolFault(f"{country} replied before it was asked")
        return self._member(country)

    @cached_property
    def _sealed_by_holder(self) -> NDArray[np.uint8]:
        return sealed_by_holder(self._roster, self._set, self._sealed)

    def _sealed_for(self, holder: str) -> bytes:
        """Return the shares that the other countries of U sealed for a holder."""
        sealed: NDArray[np.uint8] = self._sealed_by_holder[self._roster.index(holder)]
        own = self._set.index(holder)
        return sealed[:own].tobytes() + sealed[own + 1 :].tobytes()

    def _commitments_for(self, holder: str) -> bytes:
        """Return the commitments of the other countries of U to a holder's shares."""
        joined = {owner: self._commitments[owner] for owner in self._set if owner != holder}
        return commitments_for(self._roster.index(holder), joined)

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
        self, country: str, contribution: Contribution, words: memoryview, head: ContributionHead
    ) -> None:
        """Check that all that travels beside a head matches its digests and has the right size."""
        context, size = self._terms.context, len(self._roster)
        if words_digest(self._terms, country, words) != head.words_digest:
            raise ProtocolFault(f"The masked words of {country} are not those that it signed")
        if (
            commitments_digest(context, country, contribution.commitments)
            != head.commitments_digest
        ):
            raise ProtocolFault(f"The commitments of {country} are not those that it signed")
        if head.round != self._terms.round_number:
            raise ProtocolFault(f"{country} signed another round than the one it was asked for")
        self._require_versions(country, contribution, head)
        sizes = (len(contribution.commitments), len(contribution.shares))
        if sizes != (HASH_BYTES * size, SEALED_BYTES * (size - 1)):
            raise malformed(f"{country} does not share its seed with each country")

    def _require_versions(
        self, country: str, contribution: Contribution, head: ContributionHead
    ) -> None:
        contribution.versions.DiscardUnknownFields()  # they are forwarded to other countries
        if contribution.versions.ByteSize() > MAX_HEAD_BYTES:
            raise malformed(f"{country} claims document versions of too many countries")
        if versions_digest(contribution.versions) != head.versions_digest:
            raise ProtocolFault(f"The document versions of {country} are not those that it signed")
        if head.versions_digest not in self._versions:
            self._view.require_published(
                country, DocumentVersions.from_proto(contribution.versions)
            )

    def _shortfall(self, chosen: tuple[str, ...]) -> VoidRound | None:
        """Return why the sum over `chosen` cannot be opened, whatever they answer; else None."""
        absent = tuple(country for country in self._asked if country not in chosen)
        if absent and self._asked != self._roster:
            return VoidRound("a country that the others agreed on did not contribute", absent)
        needed = self._view.terms.smallest_set
        if len(chosen) < needed:
            reason = f"too few countries contributed: {len(chosen)} of the {needed} needed"
            return VoidRound(reason, absent)
        return None

    def _missing_replies(self, chosen: tuple[str, ...]) -> VoidRound | None:
        """Return why the sum cannot be opened with the signatures and answers so far; else None."""
        threshold = self._view.terms.threshold
        if self.smaller and len(self._assents) < threshold:
            silent = tuple(country for country in chosen if country not in self._assents)
            return VoidRound("too few countries agreed to open the sum of the others", silent)
        answered = self.answered
        silent = tuple(country for country in chosen if country not in answered)
        if len(answered) < (len(chosen) if self.smaller else threshold):
            return VoidRound("too few countries answered", silent)
        return None

    def _seeds(self, chosen: Sequence[str]) -> dict[str, bytes]:
        """Return the seeds that can be recovered from the shares so far, by owner."""
        answers, heads = self._answers, self._signed
        seeds = {owner: answers.seed(owner, heads[owner].seed_commitment) for owner in chosen}
        return {owner: seed for owner, seed in seeds.items() if seed is not None}

    def _missing_seeds(self, chosen: Sequence[str], seeds: Mapping[str, bytes]) -> VoidRound | None:
        if len(seeds) == len(chosen):
            return None
        faults = self.share_faults
        reason = "a country's seed cannot be recovered from its shares"
        return VoidRound(f"{reason}{faults.undecided}", tuple(sorted(faults.convicted)))

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
        """Remove the masks between countries of U and countries outside it, which do not cancel."""
        for country in chosen:
            for outside, key in self._answers.masks(country).items():
                remove = self._masker.subtract if outside > country else self._masker.add
                remove(key, words)
