"""Collects the answers of the countries of U, and computes the seeds from their shares.

A share can be checked without a signature of the answer, since its owner has signed commitments to
the seed and to each share. Everything else in an answer relies on its country's signature. So the
signature is checked at once if an answer has more than shares, and otherwise only if a seed does
not match its commitment.
"""

from collections.abc import Collection, Mapping, Sequence

from keys.derive import HASH_BYTES
from protocols.errors import ProtocolFault, Refusal
from protocols.private_sum import shares
from protocols.private_sum.context import RoundTerms
from protocols.private_sum.coordinator_view import CoordinatorView, keep
from protocols.private_sum.masking import KEY_BYTES
from protocols.private_sum.messages import (
    SEALING_KEY_BYTES,
    SHARE_BYTES,
    split_parts,
)
from protocols.private_sum.setup import LARGEST_BODY
from protocols.private_sum.share_faults import ShareReport
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
        self._numbers = {country: n for n, country in enumerate(terms.run.roster, start=1)}
        self._signed: dict[str, Signed] = {}
        self._shares: dict[str, dict[str, bytes]] = {}
        self._masks: dict[str, dict[str, bytes]] = {}
        self._compared: dict[str, bool] = {}
        self._keys: dict[str, dict[str, bytes]] = {}
        self._wrong: set[tuple[str, str]] = set()
        self._sifted = False
        """Whether every share left is the one that its owner committed to."""

    @property
    def countries(self) -> tuple[str, ...]:
        """The countries whose answer has arrived."""
        return tuple(sorted(self._signed))

    def unopenable(self, owners: Collection[str]) -> tuple[tuple[str, str], ...]:
        """Return the pairs (holder, owner) whose share is known to be unusable, sorted."""
        return tuple(
            (holder, owner)
            for holder, by_owner in sorted(self._shares.items())
            for owner in owners
            if owner not in by_owner
        )

    def take(self, country: str, signed: Signed, chosen: Sequence[str]) -> None:
        """Check and store a country's answer; `chosen` is U. Raises ProtocolFault and Refusal."""
        answer = parse(Answer, self._read_unverified(signed, country), LARGEST_BODY)
        if answer.round != self._terms.round_number:
            raise malformed(f"{country} answered for another round than the one it was asked for")
        outside = sorted(set(self._numbers) - set(chosen))
        by_owner = _shares_by_owner(answer, country, chosen)
        masks = split_parts(answer.masks, outside, KEY_BYTES)
        if answer.unopenable or masks:
            self._view.verify(signed, country)
        reported = list(answer.unopenable) if answer.compared else []
        keys = split_parts(answer.keys, reported, SEALING_KEY_BYTES)
        keep(self._signed, country, signed)
        self._shares.setdefault(country, by_owner)
        self._masks[country], self._keys[country] = masks, keys
        self._compared[country] = answer.compared

    def masks(self, country: str) -> Mapping[str, bytes]:
        """Return the keys of a country's masks with the countries outside U."""
        return self._masks[country]

    def seed(self, owner: str, commitment: bytes) -> bytes | None:
        """Return the seed from the first t shares, or None if it does not match its commitment."""
        shares_by_holder = {h: given[owner] for h, given in self._shares.items() if owner in given}
        first = sorted(shares_by_holder)[: self._terms.run.threshold]
        if len(first) < self._terms.run.threshold:
            return None
        try:
            seed = shares.combine(
                {self._numbers[holder]: shares_by_holder[holder] for holder in first}
            )
        except ProtocolFault:
            return None
        actual = shares.commit(self._terms.context, owner, ROSTER, seed)
        return seed if actual == commitment else None

    def reports(self, owners: Collection[str]) -> list[ShareReport]:
        """Return what is known about each unusable share of these owners."""
        return [
            ShareReport(
                holder=holder,
                owner=owner,
                handed_in=(holder, owner) in self._wrong,
                compared=self._compared[holder],
                key=self._keys[holder].get(owner),
            )
            for holder, owner in self.unopenable(owners)
        ]

    def inconsistent(self, seed_commitments: Mapping[str, bytes]) -> list[str]:
        """Return the owners whose committed shares are enough, and give another seed."""
        enough = [
            owner
            for owner in (seed_commitments if self._sifted else ())
            if sum(owner in by_owner for by_owner in self._shares.values())
            >= self._terms.run.threshold
        ]
        return [owner for owner in enough if self.seed(owner, seed_commitments[owner]) is None]

    def sift(self, commitments: Mapping[str, bytes]) -> None:
        """Drop answers that their country did not sign, and shares that are not the committed ones.

        `commitments` are each owner's, joined. An answer dropped without a valid signature may
        still arrive with one.
        """
        self._sifted = True
        forged = [country for country in self._signed if not self._is_authentic(country)]
        for country in forged:
            del self._signed[country], self._shares[country], self._masks[country]
        for owner, joined in commitments.items():
            signed = split_parts(joined, self._terms.run.roster, HASH_BYTES)
            for holder, by_owner in self._shares.items():
                if owner in by_owner and not self._is_committed(owner, holder, signed[holder]):
                    del by_owner[owner]
                    self._wrong.add((holder, owner))

    def _read_unverified(self, signed: Signed, country: str) -> bytes:
        context = self._terms.context
        return self._view.read_unverified(signed, country, PHASE_ANSWER, context, COORDINATOR)

    def _is_authentic(self, country: str) -> bool:
        try:
            self._view.verify(self._signed[country], country)
        except Refusal:
            return False
        return True

    def _is_committed(self, owner: str, holder: str, commitment: bytes) -> bool:
        share = self._shares[holder][owner]
        return shares.commit(self._terms.context, owner, holder, share) == commitment


def _shares_by_owner(answer: Answer, country: str, chosen: Sequence[str]) -> dict[str, bytes]:
    """Return the shares in an answer by owner, without those that did not open."""
    unopenable = list(answer.unopenable)
    if unopenable and unopenable != sorted(set(unopenable) & set(chosen)):
        raise malformed(f"the answer of {country} names other countries than the request")
    by_owner = split_parts(answer.shares, chosen, SHARE_BYTES)
    for owner in unopenable:
        del by_owner[owner]
    return by_owner
