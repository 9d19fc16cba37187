"""Whose a call or a connection is, and how much this holder may have at once.

A party is a country's node, or its officers, or a guest with one invitation: how many certificates
it has makes no difference. A node's certificate may be in two machines. So the session that acts is
a holder of its own, and the others of the same node are holders that may have little.
"""

from dataclasses import dataclass

from keys.certificates import Peer, Role
from server.exchange.fencing import ACTS, Claim, Rank

OF_MEMBER, OF_GUEST = 16, 2
"""The most calls in progress, and the most connections: of a member (a long poll, a heartbeat, some
documents), and of an invitation."""
OF_OTHERS = 6
"""The most of a node's sessions of each other rank; one that signs in needs no more. Each session
that acted before has as many calls, and all of them together as many connections."""
NODE_BYTES = 64 * 2**20
"""The most bytes that the calls of a node may hold: one request or reply of largest size."""
LITTLE_BYTES = 5 * 2**20
"""The most bytes that the calls of a country's officers may hold, beside its node: a submission of
largest size. Those of a node's sessions that do not act may hold as much, together."""
ALL_BYTES = 4 * (NODE_BYTES + 2 * LITTLE_BYTES)
"""The most bytes of all calls: what four countries may hold."""


@dataclass(frozen=True)
class Holder:
    """Who holds a call or a connection: a party, and for a node the claim of its session."""

    party: str
    role: Role
    claim: Claim

    @property
    def acts(self) -> bool:
        """Whether its party is the only one that can be it, as far as the exchange knows."""
        return self.claim.rank is Rank.ACTS

    @property
    def most(self) -> int:
        """The most calls in progress, and the most connections."""
        if self.role is Role.ENROLMENT:
            return OF_GUEST
        return OF_MEMBER if self.acts else OF_OTHERS

    @property
    def most_bytes(self) -> int:
        """The most bytes of its calls, and of those that share with it."""
        return NODE_BYTES if self.role is Role.NODE and self.acts else LITTLE_BYTES

    def shares_with(self, other: "Holder") -> bool:
        """Return whether the bytes of the two count together."""
        return self.party == other.party and self.acts is other.acts


def holder_of(peer: Peer, claim: Claim = ACTS) -> Holder:
    """Return who holds a call with this certificate, in a session with this claim."""
    invitation = f" {peer.serial}" if peer.role is Role.ENROLMENT else ""
    return Holder(f"{peer.country} {peer.role}{invitation}", peer.role, claim)
