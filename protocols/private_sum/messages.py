"""Requests and replies of a run: how they are written and read, their size limits and refusals.

The content of a request is only a claim until `Request.authenticate` has checked it with the
coordinator's key from the documents and with a context that the country computed itself.
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
"""128 MiB: enough for a model of 64 MiB and what is sent with it."""
LARGEST_REQUEST_BODY = 1 << 23
"""8 MiB for the signed body: enough for the heads and assents of the largest roster, with two
signatures each. A parsed body needs many times as much memory."""
LARGEST_REPLY = 1 << 25
"""32 MiB: a million coordinates of 64 bits, and the shares for the largest roster."""
LARGEST_WORDLESS = 1 << 21
"""2 MiB: the largest reply of any phase without its words; its body may have half of that."""
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
MAC_BYTES = SHARE_BYTES = SEALING_KEY_BYTES = HASH_BYTES
SEALED_BYTES = NONCE_BYTES + SHARE_BYTES + TAG_BYTES
VERSIONS_LABEL = "pratique/versions/v1"


@dataclass(frozen=True)
class Request:
    """A request as received. `digest` (32 bytes) covers all of it but the signature.

    `versions` are the document versions that the coordinator claims to have. The signed body is the
    same for every country. `parts` are the unsigned attachments for this country: ciphertexts, MACs
    or sealed shares that the others made for it, joined in the order of the roster. `commitments`
    are those of the owners to the sealed shares; the digest does not cover them, since they decide
    only which shares are reported as wrong.

    A journal compares digests to distinguish a repeated request from another one for the same
    place. A body that is signed twice has two different signatures if the algorithm uses fresh
    randomness.
    """

    signed: Signed
    body: RequestBody
    model: bytes
    parts: bytes
    versions: DocumentVersions
    digest: bytes
    commitments: bytes

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
        """Check that the coordinator signed this request for this phase and context.

        Raises Refusal STALE or NOT_AUTHENTIC.
        """
        open_signed(
            self.signed, key, phase=phase, context=context, sender=COORDINATOR, receiver=ROSTER
        )


def read_request(data: bytes) -> Request:
    """Parse a request, without checking its signature. Raises Refusal MALFORMED."""
    envelope = parse(Envelope, data, LARGEST_REQUEST)
    body = parse(RequestBody, envelope.signed.body, LARGEST_REQUEST_BODY)
    if body.WhichOneof("content") != CONTENT.get(envelope.signed.phase, ""):
        raise malformed("its content is not that of its phase, or the phase is unknown")
    versions = DocumentVersions.from_proto(body.versions)
    if envelope.model and envelope.signed.phase != PHASE_CONTRIBUTE:
        raise malformed("it has a model, but a request of its phase has none")
    if envelope.parts and envelope.signed.phase not in WITH_PARTS:
        raise malformed("it has parts, but a request of its phase has none")
    if envelope.commitments and envelope.signed.phase != PHASE_ANSWER:
        raise malformed("it has commitments, but a request of its phase has none")
    model = envelope.model
    fields = (envelope.signed, body, model, envelope.parts, versions)
    request = Request(*fields, _digest(envelope, model), envelope.commitments)
    if request.round_number > LARGEST_ROUND:
        raise malformed(f"its round is above {LARGEST_ROUND}")
    return request


def _digest(envelope: Envelope, model: bytes) -> bytes:
    signed = envelope.signed
    binding = bind(signed.context, signed.phase, signed.sender, signed.receiver, signed.body)
    return labelled_hash(REQUEST_LABEL, binding, envelope.parts, model)


def sign_request(sign: Signer, *, context: bytes, phase: Phase, body: RequestBody) -> Signed:
    """Sign a request body, once for every country."""
    return sign_message(
        sign,
        phase=phase,
        context=context,
        sender=COORDINATOR,
        receiver=ROSTER,
        body=serialise(body),
    )


def write_request(signed: Signed, *, model: bytes = b"", parts: bytes = b"") -> bytes:
    """Return the request to one country; equal content and parts give an equal digest."""
    return with_parts(serialise(Envelope(signed=signed, model=model)), parts)


def with_parts(request: bytes, parts: bytes, commitments: bytes = b"") -> bytes:
    """Append parts to a request that has none: they are the last fields of the message."""
    return request + serialise(Envelope(parts=parts, commitments=commitments))


def read_reply(data: bytes, country: str, content: str) -> Reply:
    """Parse a country's reply, and check that its `content` is set.

    Raises Refusal: the country's code if it refused, MALFORMED if the reply has other content.
    """
    reply = _read(data, country, content)
    if reply.words:
        raise malformed(f"{country} sent masked words in a phase that has none")
    return reply


def _read(data: bytes, country: str, content: str) -> Reply:
    reply = parse(Reply, data, LARGEST_WORDLESS)
    actual = reply.WhichOneof("content")
    if actual == "refused":
        raise Refusal(
            _code(reply.refused), f"{country} refused", why=f"its code: {reply.refused.code[:32]!r}"
        )
    if actual != content:
        raise malformed(f"{country} sent another kind of reply than it was asked for")
    return reply


def largest_contribution(words: int) -> int:
    """Return the size in bytes of the largest reply with this number of masked words."""
    return min(LARGEST_REPLY, LARGEST_WORDLESS + 8 * words)


def write_contribution(contribution: Contribution, words: memoryview) -> bytes:
    """Return the reply with a contribution: one message, which ends with the words."""
    reply = Reply(contribution=contribution)
    return b"".join((serialise(reply), _before_words(words.nbytes), words))


def read_contribution(data: bytes, country: str, size: int) -> tuple[Contribution, memoryview]:
    """Parse a country's contribution and its `size` bytes of words, which are a view into `data`.

    Raises Refusal as `read_reply` does, and MALFORMED unless the message ends with these words.
    """
    before = _before_words(size)
    end = len(data) - size - len(before)
    if end < 0 or data[end : end + len(before)] != before or len(data) > LARGEST_REPLY:
        if len(data) <= LARGEST_WORDLESS:
            _read(data, country, "contribution")  # it may be a refusal
        raise malformed(f"{country} did not send {size} bytes of words at the end of its message")
    reply = read_reply(data[:end], country, "contribution")
    return reply.contribution, memoryview(data)[end + len(before) :]


@lru_cache(maxsize=8)
def _before_words(size: int) -> bytes:
    """Return the bytes before the words in a message: the field's tag and the words' length."""
    return serialise(Reply(words=bytes(size)))[:-size]


def refusal_reply(code: ReasonCode) -> bytes:
    """Return a reply with one reason code and nothing else."""
    return serialise(Reply(refused=Refused(code=code.value)))


def open_all(
    messages: Sequence[Signed], peers: Mapping[str, PublicIdentity], phase: Phase, context: bytes
) -> dict[str, bytes]:
    """Check one message of each country of `peers` to the roster, and return their bodies.

    Raises Refusal: ROSTER unless there is exactly one of each, sorted, or as `open_signed` does.
    """
    if [message.sender for message in messages] != sorted(peers):
        raise Refusal(
            ReasonCode.ROSTER,
            "A request does not have one message of each country of the roster",
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


def split_parts(data: bytes, countries: Sequence[str], size: int) -> dict[str, bytes]:
    """Split `data` into parts of `size` bytes, one for each of `countries`, in their order.

    Raises Refusal ROSTER if it has another length.
    """
    if len(data) != size * len(countries):
        raise Refusal(ReasonCode.ROSTER, "A message does not have one part for each country")
    starts = range(0, len(data), size)
    return {c: data[start : start + size] for c, start in zip(countries, starts, strict=True)}


def versions_digest(versions: DocumentVersionsMessage) -> bytes:
    """Return the 32-byte digest of the versions that a party claims to have."""
    return labelled_hash(VERSIONS_LABEL, serialise(versions))


def require_current(own: DocumentVersions, claimed: DocumentVersions, sender: str) -> None:
    """Check that the sender claims no newer document. Raises Refusal DOCUMENTS_BEHIND."""
    newer = own.newer_in(claimed)
    if newer:
        raise Refusal(
            ReasonCode.DOCUMENTS_BEHIND,
            f"{sender} has newer documents than this country",
            why=f"newer there: {', '.join(newer)[:200]}",
            fix="fetch the documents again; this country contributes nothing without them",
        )


def _code(refused: Refused) -> ReasonCode:
    try:
        return ReasonCode(refused.code)
    except ValueError:
        return ReasonCode.MALFORMED
