"""Requests and replies of a run as they travel: their envelopes, size limits and refusals.

What a request says is a claim until `Request.authenticate` has held it against a context that the
country computed itself and the coordinator's key from the documents.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from keys.composite import PublicIdentity
from keys.derive import labelled_hash
from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.context import LARGEST_ROSTER, DocumentVersions
from protocols.proto.round_pb2 import (
    PHASE_AGREE,
    PHASE_ANSWER,
    PHASE_BUNDLE,
    PHASE_CONFIRM,
    PHASE_CONTRIBUTE,
    PHASE_ENCAPSULATE,
    Parcel,
    Phase,
    Refused,
    Reply,
    RequestBody,
    Signed,
)
from protocols.proto.round_pb2 import Request as Envelope
from protocols.signed import (
    COORDINATOR,
    ROSTER,
    Signer,
    bind,
    malformed,
    open_signed,
    parse,
    serialise,
    sign_message,
)

LARGEST_REQUEST = 1 << 27
"""128 MiB: a model of 64 MiB and what goes with it, with room."""
LARGEST_REPLY = 1 << 25
"""32 MiB: a million coordinates of 64 bits, and the shares for the largest roster."""
REQUEST_LABEL = "pratique/request/v1"
CONTENT = {
    PHASE_BUNDLE: "bundle",
    PHASE_ENCAPSULATE: "encapsulate",
    PHASE_CONFIRM: "confirm",
    PHASE_CONTRIBUTE: "contribute",
    PHASE_AGREE: "agree",
    PHASE_ANSWER: "answer",
}
"""What the body of a request holds in each phase; a phase that is not here is refused."""


@dataclass(frozen=True)
class Request:
    """A request as it came. `digest` (32 bytes) is over all of it but the signature.

    A journal compares digests to tell a repeated request from another one for the same place.
    Signed twice, the same words have two signatures where a scheme signs with fresh randomness.
    """

    signed: Signed
    body: RequestBody
    model: bytes
    digest: bytes

    @property
    def phase(self) -> Phase:
        """The phase that the request claims."""
        return self.signed.phase

    @property
    def agreement(self) -> str:
        """The digest of the agreement that the request claims."""
        return self.body.agreement

    @property
    def study(self) -> str:
        """The digest of the study that the request claims."""
        return self.body.study

    @property
    def run_id(self) -> bytes:
        """The run that the request claims."""
        return self.body.run_id

    @property
    def versions(self) -> DocumentVersions:
        """The document versions that the coordinator claims to hold."""
        return DocumentVersions.from_proto(self.body.versions)

    @property
    def roster(self) -> tuple[str, ...]:
        """The countries that a BUNDLE request claims; empty in other phases."""
        return tuple(self.body.bundle.roster)

    @property
    def round_number(self) -> int:
        """The round that a CONTRIBUTE, AGREE or ANSWER request claims; 0 in set-up."""
        body = self.body
        return body.contribute.round or body.agree.round or body.answer.round

    @property
    def phase_kind(self) -> str:
        """The kind of round that a CONTRIBUTE request claims; empty in other phases."""
        return self.body.contribute.phase_kind

    def authenticate(
        self, key: PublicIdentity, *, phase: Phase, context: bytes, country: str
    ) -> None:
        """Return when the coordinator signed this for the country, in this phase and context.

        Raises Refusal STALE or NOT_AUTHENTIC.
        """
        open_signed(
            self.signed, key, phase=phase, context=context, sender=COORDINATOR, receiver=country
        )


def read_request(data: bytes) -> Request:
    """Return what a request claims. Raises Refusal MALFORMED."""
    envelope = parse(Envelope, data, LARGEST_REQUEST)
    body = parse(RequestBody, envelope.signed.body, LARGEST_REQUEST)
    if body.WhichOneof("content") != CONTENT.get(envelope.signed.phase, ""):
        raise malformed("its content is not that of its phase, or the phase is not known here")
    if len(body.versions.countries) > LARGEST_ROSTER:
        raise malformed("it claims document versions of too many countries")
    if envelope.model and envelope.signed.phase != PHASE_CONTRIBUTE:
        raise malformed("it brings a model where none belongs")
    return Request(envelope.signed, body, envelope.model, _digest(envelope))


def _digest(envelope: Envelope) -> bytes:
    said = envelope.signed
    place = bind(said.context, said.phase, said.sender, said.receiver, said.body)
    return labelled_hash(REQUEST_LABEL, place, envelope.model)


def write_request(
    sign: Signer, *, context: bytes, country: str, phase: Phase, body: RequestBody, model: bytes
) -> bytes:
    """Return the coordinator's request to a country; equal arguments, equal digest."""
    signed = sign_message(
        sign,
        phase=phase,
        context=context,
        sender=COORDINATOR,
        receiver=country,
        body=serialise(body),
    )
    return serialise(Envelope(signed=signed, model=model))


def read_reply(data: bytes, country: str, content: str) -> Reply:
    """Return a country's reply, whose `content` is set.

    Raises Refusal with the country's code when it refused, MALFORMED when it says anything else.
    """
    reply = parse(Reply, data, LARGEST_REPLY)
    said = reply.WhichOneof("content")
    if said == "refused":
        raise Refusal(
            _code(reply.refused), f"{country} refused", why=f"Its code: {reply.refused.code[:32]!r}"
        )
    if said != content:
        raise malformed(f"{country} did not reply with what was asked")
    return reply


def refusal_reply(code: ReasonCode) -> bytes:
    """Return the reply that carries one reason code and nothing else."""
    return serialise(Reply(refused=Refused(code=code.value)))


def open_all(
    messages: Sequence[Signed], peers: Mapping[str, PublicIdentity], phase: Phase, context: bytes
) -> dict[str, bytes]:
    """Return the body each country of `peers` addressed to the roster.

    Raises Refusal ROSTER unless there is exactly one of each, sorted, and what `open_signed` does.
    """
    if [message.sender for message in messages] != sorted(peers):
        raise Refusal(
            ReasonCode.ROSTER,
            "A request does not bring one message of each country of the roster",
        )
    return {
        message.sender: open_signed(
            message,
            peers[message.sender],
            phase=phase,
            context=context,
            sender=message.sender,
            receiver=ROSTER,
        )
        for message in messages
    }


def unpack_parcels(parcels: Iterable[Parcel], countries: Sequence[str]) -> dict[str, bytes]:
    """Return the parcels by country. Raises Refusal ROSTER unless they are for exactly these."""
    listed = [(parcel.country, parcel.content) for parcel in parcels]
    if [country for country, _ in listed] != list(countries):
        raise Refusal(
            ReasonCode.ROSTER, "A message does not hold one part for each country it should"
        )
    return dict(listed)


def parcels(contents: Mapping[str, bytes]) -> list[Parcel]:
    """Return the parcels of a mapping by country, in its order."""
    return [Parcel(country=country, content=content) for country, content in contents.items()]


def require_current(own: DocumentVersions, claimed: DocumentVersions, speaker: str) -> None:
    """Return when the speaker holds no newer document. Raises Refusal DOCUMENTS_BEHIND."""
    newer = own.newer_in(claimed)
    if newer:
        raise Refusal(
            ReasonCode.DOCUMENTS_BEHIND,
            f"{speaker} holds newer documents than this country",
            why=f"Newer there: {', '.join(newer)[:200]}",
            fix="fetch the documents again; nothing is contributed before they are here",
        )


def _code(refused: Refused) -> ReasonCode:
    try:
        return ReasonCode(refused.code)
    except ValueError:
        return ReasonCode.MALFORMED
