"""What the coordinator does to open a sum, in other words than the project's own."""

from collections.abc import Mapping, Sequence
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
    unpacked,
)


@dataclass(frozen=True)
class Opening:
    """A round as the coordinator has it: what came from the countries, by country."""

    context: bytes
    roster: tuple[str, ...]
    threshold: int
    mechanism: Mechanism
    contributions: Mapping[str, pb.Contribution]
    answers: Mapping[str, pb.Answer]

    def opened(self) -> list[int]:
        """The sums; AssertionError where anything is not what was committed to."""
        k, d = self.mechanism.lane_bits(len(self.roster)), self.mechanism.integer("dimension")
        words = sum((self.words(one) for one in self.contributions), start=np.uint64(0))
        for owner in self.contributions:
            words = words - key_stream(self.own_mask(owner), len(words))
        lattice = unpacked(self.without_the_absent(words), k, d + CHECKS)
        assert lattice[d:] == [0] * CHECKS
        return lattice[:d]

    def words(self, owner: str) -> Words:
        said = self.contributions[owner]
        head = self.head(owner)
        assert head.words_digest == self.bound(owner, "coordinator", said.words)
        made = commitments_digest(self.context, owner, said.commitments)
        assert head.commitments_digest == made
        return np.frombuffer(said.words, dtype="<u8")

    def own_mask(self, owner: str) -> bytes:
        """The key of the owner's mask, of the last t shares that it committed to."""
        commitments = self.contributions[owner].commitments
        shares = {}
        for holder, answer in self.answers.items():
            at = self.roster.index(holder)
            given = contents(answer.shares).get(owner, b"")
            if self.bound(owner, holder, given) == commitments[32 * at : 32 * at + 32]:
                shares[at + 1] = given
        assert len(shares) >= self.threshold
        seed = interpolated(dict(sorted(shares.items())[-self.threshold :]))
        assert self.bound(owner, "roster", seed) == self.head(owner).seed_commitment
        return own_mask_key(seed, self.context, owner)

    def without_the_absent(self, words: Words) -> Words:
        for holder, answer in self.answers.items():
            for absent, key in contents(answer.masks).items():
                stream = key_stream(key, len(words))
                words = words - stream if absent > holder else words + stream
        return words

    def head(self, owner: str) -> pb.ContributionHead:
        return parsed(pb.ContributionHead, self.contributions[owner].head.body)

    def bound(self, owner: str, receiver: str, body: bytes) -> bytes:
        return bind(self.context, CONTRIBUTE, owner, receiver, body)


def contents(parcels: Sequence[pb.Parcel]) -> dict[str, bytes]:
    return {one.country: one.content for one in parcels}
