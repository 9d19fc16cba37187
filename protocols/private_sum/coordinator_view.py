"""The coordinator's desk: whom it speaks with, under which terms, and whose key signs for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from keys.composite import PublicIdentity
from protocols.errors import ProtocolFault
from protocols.private_sum.context import RunTerms, roster_refusal
from protocols.private_sum.messages import sign_request
from protocols.proto.round_pb2 import Phase, RequestBody, Signed
from protocols.wire.document_versions import DocumentVersions
from protocols.wire.signed_message import Signer, require_place, verify_signed

Value = TypeVar("Value")


class Unpublished(ProtocolFault):
    """A country claims documents that nobody else can have yet: they may come, or do not exist."""


@dataclass(frozen=True)
class CoordinatorView:
    """What stays the same in a run: `peers` are the countries' identity keys in the documents.

    `versions` are claimed in every request; `published` returns what the coordinator has by now.
    Raises Refusal ROSTER for keys of another roster.
    """

    terms: RunTerms
    peers: Mapping[str, PublicIdentity]
    sign: Signer
    versions: DocumentVersions
    published: Callable[[], DocumentVersions]

    def __post_init__(self) -> None:
        if tuple(sorted(self.peers)) != self.terms.roster:
            raise roster_refusal("there is not one identity key for each of them")

    def ask(self, phase: Phase, context: bytes, content: RequestBody) -> Signed:
        """Return what every country is asked, signed.

        `content` is a body in which the phase's part is filled in; the rest of it is filled in
        here, in place, as it may hold hundreds of signed heads.
        """
        content.agreement, content.study = self.terms.agreement, self.terms.study
        content.run_id = self.terms.run_id
        content.versions.CopyFrom(self.versions.to_proto())
        return sign_request(self.sign, context=context, phase=phase, body=content)

    def open(
        self, message: Signed, country: str, phase: Phase, context: bytes, receiver: str
    ) -> bytes:
        """Return the body that a country signed. Raises Refusal naming it.

        What the message holds beside it, which nobody signed, is taken out: others are to read it.
        """
        body = self.placed(message, country, phase, context, receiver)
        message.DiscardUnknownFields()
        self.verify(message, country)
        return body

    def placed(
        self, message: Signed, country: str, phase: Phase, context: bytes, receiver: str
    ) -> bytes:
        """Return the body of what claims to be a country's; `verify` checks whether it is."""
        self.require_known(country)
        require_place(message, phase=phase, context=context, sender=country, receiver=receiver)
        return message.body

    def verify(self, message: Signed, country: str) -> None:
        """Return when a known country signed the message. Raises Refusal NOT_AUTHENTIC."""
        verify_signed(message, self.peers[country])

    def require_known(self, country: str) -> None:
        """Return when the country is of this run. Raises ProtocolFault."""
        if country not in self.peers:
            raise ProtocolFault(f"{country} is not a country of this run")

    def require_published(self, country: str, claimed: DocumentVersions) -> None:
        """Return when a country claims nothing newer than what is published. Raises Unpublished.

        The others would have to wait for it, and could not distinguish a document that is on its
        way from one that there is not.
        """
        newer = self.versions.newer_in(claimed) and self.published().newer_in(claimed)
        if newer:
            raise Unpublished(
                f"{country} holds documents that are not published",
                why=f"newer there: {', '.join(newer)[:200]}",
            )

    def require_all(self, taken: Mapping[str, Value]) -> None:
        """Return when every country of the roster is there. Raises ProtocolFault naming others."""
        missing = [country for country in self.terms.roster if country not in taken]
        if missing:
            raise ProtocolFault(
                "The next step of the run must wait", why=f"nothing yet from {', '.join(missing)}"
            )


def keep(store: dict[str, Value], country: str, value: Value) -> None:
    """Keep what a country said. Raises ProtocolFault when it said something else before."""
    if store.setdefault(country, value) != value:
        raise ProtocolFault(
            f"{country} gave two different replies to one request",
            why="the first one counts; a second is never taken",
        )
