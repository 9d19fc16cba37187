"""Requests and replies of a run as they travel: their envelopes, size limits and refusals.

What a request says is a claim until `Request.authenticate` has held it against a context that the
country computed itself and the coordinator's key from the documents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from keys.composite import PublicIdentity
from keys.derive import HASH_BYTES, labelled_hash
from keys.sealing import NONCE_BYTES, TAG_BYTES
from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.context import LARGEST_ROUND
from protocols.proto.round_pb2 import (
    PHASE_AGREE,
    PHASE_ANSWER,
    PHASE_BUNDLE,
    PHASE_CONFIRM,
    PHASE_CONTRIBUTE,
    PHASE_ENCAPSULATE,
    Contribution,
    Phase,
    Refused,
    Reply,
    RequestBody,
    Signed,
)
from protocols.proto.round_pb2 import DocumentVersions as DocumentVersionsMessage
from protocols.proto.round_pb2 import Request as Envelope
from protocols.wire.document_versions import DocumentVersions
from protocols.wire.signed_message import (
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
LARGEST_SAID = 1 << 23
"""8 MiB for the words that are signed: the heads and assents of the largest roster, under two
signatures each, with room. What a reader makes of them takes many times their size."""
LARGEST_REPLY = 1 << 25
"""32 MiB: a million coordinates of 64 bits, and the shares for the largest roster."""
LARGEST_WORDLESS = 1 << 21
"""2 MiB: the largest reply but for its words, of all phases; its body may have half of that."""
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
WITH_PARTS = frozenset({PHASE_CONFIRM, PHASE_CONTRIBUTE, PHASE_ANSWER})
MAC_BYTES = SHARE_BYTES = HASH_BYTES
SEALED_BYTES = NONCE_BYTES + SHARE_BYTES + TAG_BYTES
VERSIONS_LABEL = "pratique/versions/v1"


@dataclass(frozen=True)
class Request:
    """A request as it came. `digest` (32 bytes) is over all of it but the signature.

    `versions` are the document versions that the coordinator claims to hold.

    The signed words are the same for every country; `parts` are what others made for this one.

    A journal compares digests to distinguish a repeated request from another one for the same
    place. Signed twice, the same words have two signatures where a scheme signs with fresh
    randomness.
    """

    signed: Signed
    body: RequestBody
    model: bytes
    parts: bytes
    versions: DocumentVersions
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

    def authenticate(self, key: PublicIdentity, *, phase: Phase, context: bytes) -> None:
        """Return when the coordinator signed this, in this phase and context.

        Raises Refusal STALE or NOT_AUTHENTIC.
        """
        open_signed(
            self.signed, key, phase=phase, context=context, sender=COORDINATOR, receiver=ROSTER
        )


def read_request(data: bytes) -> Request:
    """Return what a request claims. Raises Refusal MALFORMED."""
    envelope = parse(Envelope, data, LARGEST_REQUEST)
    body = parse(RequestBody, envelope.signed.body, LARGEST_SAID)
    if body.WhichOneof("content") != CONTENT.get(envelope.signed.phase, ""):
        raise malformed("its content is not that of its phase, or the phase is not known here")
    versions = DocumentVersions.from_proto(body.versions)
    if envelope.model and envelope.signed.phase != PHASE_CONTRIBUTE:
        raise malformed("it brings a model, and its phase has none")
    if envelope.parts and envelope.signed.phase not in WITH_PARTS:
        raise malformed("it brings parts, and its phase has none")
    model = envelope.model
    said = (envelope.signed, body, model, envelope.parts, versions)
    made = Request(*said, _digest(envelope, model))
    if made.round_number > LARGEST_ROUND:
        raise malformed(f"its round is above {LARGEST_ROUND}")
    return made


def _digest(envelope: Envelope, model: bytes) -> bytes:
    said = envelope.signed
    place = bind(said.context, said.phase, said.sender, said.receiver, said.body)
    return labelled_hash(REQUEST_LABEL, place, envelope.parts, model)


def sign_request(sign: Signer, *, context: bytes, phase: Phase, body: RequestBody) -> Signed:
    """Return what the coordinator asks every country, signed once."""
    return sign_message(
        sign,
        phase=phase,
        context=context,
        sender=COORDINATOR,
        receiver=ROSTER,
        body=serialise(body),
    )


def write_request(signed: Signed, *, model: bytes = b"", parts: bytes = b"") -> bytes:
    """Return the request to one country; with equal words and parts, of equal digest."""
    return with_parts(serialise(Envelope(signed=signed, model=model)), parts)


def with_parts(request: bytes, parts: bytes) -> bytes:
    """Return a request that has no parts with these: they are the last field of the message."""
    return request + serialise(Envelope(parts=parts))


def read_reply(data: bytes, country: str, content: str) -> Reply:
    """Return a country's reply, whose `content` is set.

    Raises Refusal with the country's code when it refused, MALFORMED when it says anything else.
    """
    reply = _read(data, country, content)
    if reply.words:
        raise malformed(f"{country} sent a reply that its phase does not have")
    return reply


def _read(data: bytes, country: str, content: str) -> Reply:
    reply = parse(Reply, data, LARGEST_WORDLESS)
    said = reply.WhichOneof("content")
    if said == "refused":
        raise Refusal(
            _code(reply.refused), f"{country} refused", why=f"its code: {reply.refused.code[:32]!r}"
        )
    if said != content:
        raise malformed(f"{country} did not reply with what was asked")
    return reply


def write_contribution(said: Contribution, words: memoryview) -> bytes:
    """Return the reply of a contribution: one message, whose last field the words are."""
    return b"".join((serialise(Reply(contribution=said)), _before_words(words.nbytes), words))


def read_contribution(data: bytes, country: str, size: int) -> tuple[Contribution, memoryview]:
    """Return a country's contribution and its words, `size` bytes of them, which stay in `data`.

    Raises Refusal as `read_reply` does, and MALFORMED unless the message ends with such words.
    """
    before = _before_words(size)
    end = len(data) - size - len(before)
    if end < 0 or data[end : end + len(before)] != before or len(data) > LARGEST_REPLY:
        if len(data) <= LARGEST_WORDLESS:
            _read(data, country, "contribution")  # it may say why there are none
        raise malformed(f"{country} did not send {size} bytes of words at the end of its message")
    said = read_reply(data[:end], country, "contribution")
    return said.contribution, memoryview(data)[end + len(before) :]


@lru_cache(maxsize=8)
def _before_words(size: int) -> bytes:
    """Return what stands before the words in a message: the field's tag and their length."""
    return serialise(Reply(words=bytes(size)))[:-size]


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


def parted(data: bytes, countries: Sequence[str], size: int) -> dict[str, bytes]:
    """Return the parts of `size` bytes in `data` by country, in the order of `countries`.

    Raises Refusal ROSTER unless there is one for each.
    """
    if len(data) != size * len(countries):
        raise Refusal(
            ReasonCode.ROSTER, "A message does not hold one part for each country it should"
        )
    starts = range(0, len(data), size)
    return {one: data[at : at + size] for one, at in zip(countries, starts, strict=True)}


def versions_digest(versions: DocumentVersionsMessage) -> bytes:
    """Return the 32-byte digest of the versions that a party claims to hold."""
    return labelled_hash(VERSIONS_LABEL, serialise(versions))


def require_current(own: DocumentVersions, claimed: DocumentVersions, speaker: str) -> None:
    """Return when the speaker holds no newer document. Raises Refusal DOCUMENTS_BEHIND."""
    newer = own.newer_in(claimed)
    if newer:
        raise Refusal(
            ReasonCode.DOCUMENTS_BEHIND,
            f"{speaker} holds newer documents than this country",
            why=f"newer there: {', '.join(newer)[:200]}",
            fix="fetch the documents again; nothing is contributed before they are here",
        )


def _code(refused: Refused) -> ReasonCode:
    try:
        return ReasonCode(refused.code)
    except ValueError:
        return ReasonCode.MALFORMED
