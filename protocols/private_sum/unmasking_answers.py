"""What the countries of U answered, and the seeds that come out of it.

A share proves itself: its owner has signed what the seed must be, and each share of it. All else
that an answer says hangs on its country's signature. So the signature is looked at first where an
answer says more than shares, and otherwise only where a seed does not come out.
"""

from collections.abc import Mapping, Sequence

from keys.derive import HASH_BYTES
from protocols.errors import ProtocolFault, Refusal
from protocols.private_sum import shares
from protocols.private_sum.context import RoundTerms
from protocols.private_sum.coordinator_view import CoordinatorView, keep
from protocols.private_sum.masking import KEY_BYTES
from protocols.private_sum.messages import SHARE_BYTES, parted
from protocols.private_sum.setup import LARGEST_BODY
from protocols.proto.round_pb2 import PHASE_ANSWER, Answer, Signed
from protocols.wire.signed_message import (
    COORDINATOR,
    ROSTER,
    malformed,
    parse,
)


class UnmaskingAnswers:
    """The answers in one round."""

    def __init__(self, view: CoordinatorView, terms: RoundTerms) -> None:
        self._view, self._terms = view, terms
        self._places = {one: place for place, one in enumerate(terms.run.roster, start=1)}
        self._signed: dict[str, Signed] = {}
        self._shares: dict[str, dict[str, bytes]] = {}
        self._masks: dict[str, dict[str, bytes]] = {}

    @property
    def countries(self) -> tuple[str, ...]:
        """The countries whose answer is here."""
        return tuple(sorted(self._signed))

    def unopenable(self, owners: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """Return the pairs (holder, owner) whose share is known to be of no use, sorted."""
        held = sorted(self._shares.items())
        return tuple((one, owner) for one, given in held for owner in owners if owner not in given)

    def take(self, country: str, signed: Signed, chosen: Sequence[str]) -> None:
        """Take the answer of a country of U, `chosen`. Raises ProtocolFault and Refusal."""
        answer = parse(Answer, self._placed(signed, country), LARGEST_BODY)
        if answer.round != self._terms.round_number:
            raise malformed(f"{country} answered for another round than the one it was asked for")
        outside = sorted(set(self._places) - set(chosen))
        given, masks = _given(answer, country, chosen), parted(answer.masks, outside, KEY_BYTES)
        if answer.unopenable or masks:
            self._view.verify(signed, country)
        keep(self._signed, country, signed)
        self._shares.setdefault(country, given)
        self._masks[country] = masks

    def masks(self, country: str) -> Mapping[str, bytes]:
        """Return the keys of a country's masks with those outside U."""
        return self._masks[country]

    def seed(self, owner: str, commitment: bytes) -> bytes | None:
        """Return the seed that the first t shares make, None unless it is what was committed to."""
        given = {one: held[owner] for one, held in self._shares.items() if owner in held}
        first = sorted(given)[: self._terms.run.threshold]
        if len(first) < self._terms.run.threshold:
            return None
        try:
            seed = shares.combine({self._places[one]: given[one] for one in first})
        except ProtocolFault:
            return None
        made = shares.commit(self._terms.context, owner, ROSTER, seed)
        return seed if made == commitment else None

    def sift(self, commitments: Mapping[str, bytes]) -> None:
        """Drop answers that their country did not sign, and shares that are not the committed ones.

        `commitments` are each owner's, joined. What is dropped for want of a signature may still
        come.
        """
        for country in [one for one in self._signed if not self._is_authentic(one)]:
            del self._signed[country], self._shares[country], self._masks[country]
        for owner, joined in commitments.items():
            signed = parted(joined, self._terms.run.roster, HASH_BYTES)
            for holder, held in self._shares.items():
                if owner in held and not self._is_committed(owner, holder, signed[holder]):
                    del held[owner]

    def _placed(self, signed: Signed, country: str) -> bytes:
        context = self._terms.context
        return self._view.placed(signed, country, PHASE_ANSWER, context, COORDINATOR)

    def _is_authentic(self, country: str) -> bool:
        try:
            self._view.verify(self._signed[country], country)
        except Refusal:
            return False
        return True

    def _is_committed(self, owner: str, holder: str, commitment: bytes) -> bool:
        share = self._shares[holder][owner]
        return shares.commit(self._terms.context, owner, holder, share) == commitment


def _given(answer: Answer, country: str, chosen: Sequence[str]) -> dict[str, bytes]:
    """Return the shares in an answer by owner, less those that did not open."""
    unopenable = list(answer.unopenable)
    if unopenable and unopenable != sorted(set(unopenable) & set(chosen)):
        raise malformed(f"the answer of {country} is about others than it was asked")
    given = parted(answer.shares, chosen, SHARE_BYTES)
    for owner in unopenable:
        del given[owner]
    return given
