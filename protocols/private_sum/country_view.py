"""A country's documents and keys while it handles a message, to sign and check messages with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keys.composite import Identity, PublicIdentity
from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.context import RunTerms, roster_refusal
from protocols.private_sum.messages import Request, open_all, require_current
from protocols.proto.round_pb2 import Phase, Signed
from protocols.wire.document_versions import DocumentVersions
from protocols.wire.signed_message import COORDINATOR, sign_message


@dataclass(frozen=True)
class CountryView:
    """A country's documents and keys at the time of a message; nothing here comes from a request.

    `peers` maps every country of the roster, itself included, to its identity key in the
    documents; `coordinator` is the coordinator's; `versions` are the highest ever verified here,
    expired documents included. Raises Refusal ROSTER if the keys are not those of the roster.
    """

    country: str
    terms: RunTerms
    identity: Identity
    peers: Mapping[str, PublicIdentity]
    coordinator: PublicIdentity
    versions: DocumentVersions

    def __post_init__(self) -> None:
        if tuple(sorted(self.peers)) != self.terms.roster:
            raise roster_refusal("the documents do not give one identity key for each of them")
        if self.peers.get(self.country) != self.identity.public:
            raise roster_refusal("this country is not among them under its own identity key")

    @property
    def others(self) -> tuple[str, ...]:
        """The roster without this country."""
        return tuple(country for country in self.terms.roster if country != self.country)

    def sign(self, phase: Phase, context: bytes, receiver: str, body: bytes) -> Signed:
        """Sign a body as this country, and return the message."""
        return sign_message(
            self.identity.sign,
            phase=phase,
            context=context,
            sender=self.country,
            receiver=receiver,
            body=body,
        )

    def trust(self, request: Request, phase: Phase, context: bytes) -> None:
        """Check that the coordinator signed a request for this phase and context, and its versions.

        Raises Refusal STALE, NOT_AUTHENTIC or DOCUMENTS_BEHIND.
        """
        request.authenticate(self.coordinator, phase=phase, context=context)
        require_current(self.versions, request.versions, COORDINATOR)

    def open_roster(
        self,
        messages: Sequence[Signed],
        countries: Sequence[str],
        phase: Phase,
        context: bytes,
        own: bytes,
    ) -> dict[str, bytes]:
        """Check one message of each of these countries to the roster, and return their bodies.

        This country's body must be `own`. Raises Refusal; NOT_AUTHENTIC if another message is shown
        in this country's name.
        """
        peers = {country: self.peers[country] for country in countries}
        bodies = open_all(messages, peers, phase, context)
        if bodies[self.country] != own:
            raise Refusal(
                ReasonCode.NOT_AUTHENTIC,
                "A message is shown in this country's name that is not the one it sent",
                fix="treat this country's identity key as compromised: pause the node and notify "
                "the officer",
            )
        return bodies
