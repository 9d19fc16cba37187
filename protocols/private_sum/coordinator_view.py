"""The coordinator's view of a run: its terms, the countries' keys and the coordinator's key."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from keys.composite import PublicIdentity
from protocols.errors import ProtocolFault
from protocols.private_sum.context import RunTerms, roster_refusal
from protocols.private_sum.messages import sign_request
from protocols.proto.round_pb2 import Phase, RequestBody, Signed
from protocols.wire.document_versions import DocumentVersions
from protocols.wire.signed_message import Signer, require_header, verify_signed

Value = TypeVar("Value")


class Unpublished(ProtocolFault):
    """A country claims documents that are not published: they may follow, or may not exist."""


@dataclass(frozen=True)
class CoordinatorView:
    """The constants of a run. `peers` are the countries' identity keys in the documents.

    `versions` are claimed in every request; `published` returns the versions published by now.
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
        """Complete a request body, and sign it for every country.

        `content` has the phase's part already. The rest is filled in here, in place and without a
        copy, since the body may hold hundreds of signed heads.
        """
        content.agreement, content.study = self.terms.agreement, self.terms.study
        content.run_id = self.terms.run_id
        content.versions.CopyFrom(self.versions.to_proto())
        return sign_request(self.sign, context=context, phase=phase, body=content)

    def open(
        self, message: Signed, country: str, phase: Phase, context: bytes, receiver: str
    ) -> bytes:
        """Check a country's signed message, and return its body. Raises Refusal that names it.

        Unknown fields, which nobody signed, are removed, because the message is forwarded.
        """
        body = self.read_unverified(message, country, phase, context, receiver)
        message.DiscardUnknownFields()
        self.verify(message, country)
        return body

    def read_unverified(
        self, message: Signed, country: str, phase: Phase, context: bytes, receiver: str
    ) -> bytes:
        """Return the body of a country's message, whose signature only `verify` checks."""
        self.require_known(country)
        require_header(message, phase=phase, context=context, sender=country, receiver=receiver)
        return message.body

    def verify(self, message: Signed, country: str) -> None:
        """Check that a known country signed the message. Raises Refusal NOT_AUTHENTIC."""
        verify_signed(message, self.peers[country])

    def require_known(self, country: str) -> None:
        """Check that the country is in this run's roster. Raises ProtocolFault."""
        if country not in self.peers:
            raise ProtocolFault(f"{country} is not a country of this run")

    def require_published(self, country: str, claimed: DocumentVersions) -> None:
        """Check that a country claims nothing newer than what is published. Raises Unpublished.

        The other countries would have to wait for such a document, and could not know whether it is
        on its way or does not exist.
        """
        newer = self.versions.newer_in(claimed) and self.published().newer_in(claimed)
        if newer:
            raise Unpublished(
                f"{country} has documents that are not published",
                why=f"newer there: {', '.join(newer)[:200]}",
            )

    def require_all(self, replies: Mapping[str, Value]) -> None:
        """Check that every country of the roster has replied. Raises ProtocolFault."""
        missing = [country for country in self.terms.roster if country not in replies]
        if missing:
            raise ProtocolFault(
                "The next step of the run must wait", why=f"no reply yet from {', '.join(missing)}"
            )


def keep(store: dict[str, Value], country: str, value: Value) -> None:
    """Store a country's reply. Raises ProtocolFault if it gave another reply before."""
    if store.setdefault(country, value) != value:
        raise ProtocolFault(
            f"{country} gave two different replies to one request",
            why="the first one counts; a second one is never accepted",
        )
