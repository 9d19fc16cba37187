"""The coordinator's steps to open a sum, implemented independently of the project's code."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from protocols.proto import round_pb2 as pb
from tests.vectors.derivations import (
    CHECKS,
    CONTRIBUTE,
    Mechanism,
    Words,
    bind,
    commitments_digest,
    interpolated,
    key_stream,
    own_mask_key,
    parsed,
    split_by_country,
    unpacked,
    versions_digest,
    words_digest,
)


@dataclass(frozen=True)
class Opening:
    """A round as the coordinator knows it: the messages of the countries, by country."""

    context: bytes
    roster: tuple[str, ...]
    threshold: int
    mechanism: Mechanism
    contributions: Mapping[str, pb.Reply]
    answers: Mapping[str, pb.Answer]

    def opened(self) -> list[int]:
        """Return the sums; raise AssertionError if anything differs from its commitment."""
        k, d = self.mechanism.lane_bits(len(self.roster)), self.mechanism.integer("dimension")
        words: Words = np.stack([self.words(country) for country in self.contributions]).sum(
            axis=0, dtype=np.uint64
        )
        for owner in self.contributions:
            words = words - key_stream(self.own_mask(owner), len(words))
        lattice = unpacked(self.without_masks_of_absent(words), k, d + CHECKS)
        assert lattice[d:] == [0] * CHECKS
        return lattice[:d]

    def words(self, owner: str) -> Words:
        reply, head = self.contributions[owner], self.head(owner)
        contribution = reply.contribution
        assert head.words_digest == words_digest(self.context, owner, reply.words)
        digest = commitments_digest(self.context, owner, contribution.commitments)
        assert head.commitments_digest == digest
        assert head.versions_digest == versions_digest(contribution.versions)
        assert len(contribution.shares) == 60 * (len(self.roster) - 1)
        return np.frombuffer(reply.words, dtype="<u8")

    def own_mask(self, owner: str) -> bytes:
        """Return the key of the owner's mask, from the last t shares to which it committed."""
        contribution = self.contributions[owner].contribution
        commitments, shares = split_by_country(contribution.commitments, self.roster, 32), {}
        for holder in sorted(self.answers):
            given = split_by_country(self.answers[holder].shares, sorted(self.contributions), 32)[
                owner
            ]
            if self.bound(owner, holder, given) == commitments[holder]:
                shares[self.roster.index(holder) + 1] = given
        assert len(shares) >= self.threshold
        seed = interpolated(dict(list(shares.items())[-self.threshold :]))
        assert self.bound(owner, "roster", seed) == self.head(owner).seed_commitment
        return own_mask_key(seed, self.context, owner)

    def without_masks_of_absent(self, words: Words) -> Words:
        outside = [country for country in self.roster if country not in self.contributions]
        for holder, answer in self.answers.items():
            for absent, key in split_by_country(answer.masks, outside, 32).items():
                stream = key_stream(key, len(words))
                words = words - stream if absent > holder else words + stream
        return words

    def head(self, owner: str) -> pb.ContributionHead:
        return parsed(pb.ContributionHead, self.contributions[owner].contribution.head.body)

    def bound(self, owner: str, receiver: str, body: bytes) -> bytes:
        return bind(self.context, CONTRIBUTE, owner, receiver, body)
