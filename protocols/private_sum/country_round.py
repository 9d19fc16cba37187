"""A country's part in one round, as functions: view, state and request in; state, reply out."""

import hmac
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from protocols.errors import ReasonCode, Refusal
from protocols.private_sum import ratchet, setup, shares
from protocols.private_sum.context import RoundTerms
from protocols.private_sum.contribution import (
    commitments_digest,
    commitments_of,
    masked_words,
    open_share,
    read_head,
    seal_share,
    share_out,
    words_digest,
)
from protocols.private_sum.country_state import CountryState, OpenRound, Stage
from protocols.private_sum.country_view import CountryView
from protocols.private_sum.masking import Masker
from protocols.private_sum.messages import (
    MAC_BYTES,
    SEALED_BYTES,
    SHARE_BYTES,
    Request,
    parted,
    require_current,
    versions_digest,
)
from protocols.private_sum.set_agreement import (
    assent_body,
    require_agreed,
    require_set,
    require_unsigned,
)
from protocols.proto.round_pb2 import (
    PHASE_AGREE,
    PHASE_ANSWER,
    PHASE_CONTRIBUTE,
    Answer,
    AnswerRequest,
    Contribution,
    ContributionHead,
    Reply,
)
from protocols.wire.document_versions import DocumentVersions
from protocols.wire.encoding import digest
from protocols.wire.signed_message import (
    COORDINATOR,
    ROSTER,
    malformed,
    serialise,
)

LARGEST_SKIP = 10_000
"""How far ahead of its last round a country follows: each step moves its chains once."""

NOTHING = bytes(SHARE_BYTES)
"""Stands for a share that did not open."""

Step = tuple[CountryState, Reply]


def admitted(view: CountryView, state: CountryState, request: Request) -> RoundTerms:
    """Return the round that a contribute request opens, having checked all of it.

    The terms are this country's; of the request they take round number, kind and model. Raises
    Refusal.
    """
    if state.stage not in (Stage.CONFIRMED, Stage.READY):
        raise _stale("set-up is not complete")
    terms = RoundTerms(
        run=view.terms,
        bundles=tuple(state.bundles[country] for country in view.terms.roster),
        transcript=state.transcript,
        round_number=request.round_number,
        phase_kind=request.phase_kind,
        model_digest=digest(request.model),
    )
    view.trust(request, PHASE_CONTRIBUTE, terms.context)
    _require_turn(state, terms)
    _require_confirmed(state, request)
    return terms


def contributed(
    view: CountryView,
    state: CountryState,
    terms: RoundTerms,
    values: NDArray[np.int64],
    masker: Masker,
    entropy: shares.Entropy,
) -> tuple[CountryState, Contribution, NDArray[np.uint64]]:
    """Mask `values` (d,), noise included, for an admitted round, and share out the seed.

    Returns the state that comes out, what is said, and the words (words,). The state holds no mask
    key of a later round and no seed, and its chains stand at the next round.
    """
    links = _advanced(view, state, terms.round_number - state.round_number - 1)
    context, me = terms.context, view.country
    masks = {c: ratchet.mask_key(link, context, me, c) for c, link in links.items()}
    seed = shares.draw_element(entropy)
    words = masked_words(terms, me, seed, masks, values, masker)
    held = share_out(terms, seed, entropy)
    commitments, versions = commitments_of(context, me, held), view.versions.to_proto()
    head = ContributionHead(
        round=terms.round_number,
        versions_digest=versions_digest(versions),
        words_digest=words_digest(terms, me, words.data.cast("B")),
        seed_commitment=shares.commit(context, me, ROSTER, seed),
        commitments_digest=commitments_digest(context, me, commitments),
    )
    body = serialise(head)
    said = Contribution(
        head=view.sign(PHASE_CONTRIBUTE, context, ROSTER, body),
        shares=_sealed(view, context, links, held, head.seed_commitment),
        commitments=commitments,
        versions=versions,
    )
    opened = OpenRound(
        context=context,
        round_number=terms.round_number,
        head=body,
        own_share=held[me],
        seals={c: ratchet.sealing_key(link, context, c, me) for c, link in links.items()},
        masks=masks,
    )
    return _after(view, state, terms, links, opened), said, words


def agreed(view: CountryView, state: CountryState, request: Request) -> Step:
    """Sign the set smaller than the roster that the coordinator names, once a round.

    The keys of its masks inside the set are gone then: it answers for no other one. Raises
    Refusal ROSTER for a set that is not opened, and STALE when no round is open (or another one
    is), or a set was signed in it.
    """
    opened = _require_open(state, request)
    view.trust(request, PHASE_AGREE, opened.context)
    chosen = require_set(view.terms, view.country, request.body.agree.countries)
    require_unsigned(view.terms, opened, chosen)
    body = assent_body(opened.round_number, chosen)
    signed = view.sign(PHASE_AGREE, opened.context, ROSTER, body)
    outside = {one: key for one, key in opened.masks.items() if one not in chosen}
    after = opened.model_copy(update={"agreed": chosen, "masks": outside})
    return state.model_copy(update={"open_round": after}), Reply(assent=signed)


def answered(view: CountryView, state: CountryState, request: Request) -> Step:
    """Give this country's shares for U, and the keys of its masks with those outside U.

    The state that comes out has none of them. Raises Refusal ROSTER for a U that may not be
    opened, and STALE when no round is open (or another one is).
    """
    opened = _require_open(state, request)
    view.trust(request, PHASE_ANSWER, opened.context)
    asked = request.body.answer
    chosen = require_set(view.terms, view.country, asked.countries)
    require_agreed(view, opened, chosen, asked.assents)
    heads = _heads(view, opened, chosen, asked)
    others = [one for one in chosen if one != view.country]
    given = _opened_shares(view, opened, heads, parted(request.parts, others, SEALED_BYTES))
    answer = Answer(
        round=opened.round_number,
        shares=b"".join(given.get(country, NOTHING) for country in chosen),
        unopenable=[country for country in chosen if country not in given],
        masks=b"".join(opened.masks[c] for c in view.terms.roster if c not in chosen),
    )
    signed = view.sign(PHASE_ANSWER, opened.context, COORDINATOR, serialise(answer))
    return state.model_copy(update={"open_round": None}), Reply(answer=signed)


def _require_open(state: CountryState, request: Request) -> OpenRound:
    if state.open_round is None:
        raise _stale("no round is open: it was answered, or never contributed to")
    if state.open_round.round_number != request.round_number:
        raise _stale("another round is open")
    return state.open_round


def _require_turn(state: CountryState, terms: RoundTerms) -> None:
    ahead = terms.round_number - state.round_number
    if ahead < 1:
        raise _stale("this country has contributed to this round, or to a later one")
    if ahead > LARGEST_SKIP:
        raise _stale("the round is too far ahead of the last one that this country knows")
    if state.used.get(terms.phase_kind, 0) >= terms.mechanism.rounds:
        raise Refusal(
            ReasonCode.BUDGET,
            "All rounds of this kind that the study has are used",
            why="the signed schedule was charged for that many; a void round counts",
        )


def _require_confirmed(state: CountryState, request: Request) -> None:
    if state.stage is Stage.READY:
        return
    macs = parted(request.parts, sorted(state.expected), MAC_BYTES)
    for country, expected in state.expected.items():
        if not hmac.compare_digest(macs[country], expected):
            raise setup.refuse_party(country, "its key confirmation does not verify")


def _advanced(view: CountryView, state: CountryState, rounds: int) -> dict[str, bytes]:
    return {
        peer: ratchet.advance(link, state.transcript, view.country, peer, rounds)
        for peer, link in state.links.items()
    }


def _sealed(
    view: CountryView,
    context: bytes,
    links: Mapping[str, bytes],
    held: Mapping[str, bytes],
    seed_commitment: bytes,
) -> bytes:
    me, sealed = view.country, []
    for peer in view.others:
        key = ratchet.sealing_key(links[peer], context, me, peer)
        sealed.append(seal_share(context, key, me, peer, held[peer], seed_commitment))
    return b"".join(sealed)


def _after(
    view: CountryView,
    state: CountryState,
    terms: RoundTerms,
    links: Mapping[str, bytes],
    opened: OpenRound,
) -> CountryState:
    moved = {
        peer: ratchet.advance(link, state.transcript, view.country, peer, 1)
        for peer, link in links.items()
    }
    used = {**state.used, terms.phase_kind: state.used.get(terms.phase_kind, 0) + 1}
    after = {"stage": Stage.READY, "expected": {}, "links": moved, "used": used}
    return state.model_copy(
        update={**after, "round_number": terms.round_number, "open_round": opened}
    )


def _heads(
    view: CountryView, opened: OpenRound, chosen: Sequence[str], asked: AnswerRequest
) -> dict[str, ContributionHead]:
    """Return the heads of U. Hundreds of countries hold the same versions, which come once."""
    context, own = opened.context, opened.head
    bodies = view.open_roster(asked.heads, chosen, PHASE_CONTRIBUTE, context, own)
    heads = {c: read_head(body) for c, body in bodies.items()}
    if any(head.round != opened.round_number for head in heads.values()):
        raise malformed("it brings a head that is signed for another round")
    speakers = {head.versions_digest: country for country, head in heads.items()}
    if [versions_digest(shown) for shown in asked.versions] != sorted(speakers):
        raise malformed("it does not bring the document versions that the countries held")
    for made, shown in zip(sorted(speakers), asked.versions, strict=True):
        require_current(view.versions, DocumentVersions.from_proto(shown), speakers[made])
    return heads


def _opened_shares(
    view: CountryView,
    opened: OpenRound,
    heads: Mapping[str, ContributionHead],
    sealed: Mapping[str, bytes],
) -> dict[str, bytes]:
    """Return the shares that open, in the order of the countries that they are of."""
    given = {}
    for owner, head in heads.items():
        share: bytes | None = opened.own_share
        if owner != view.country:
            key = opened.seals[owner]
            commitment, me = head.seed_commitment, view.country
            share = open_share(opened.context, key, owner, me, sealed[owner], commitment)
        if share is not None:
            given[owner] = share
    return given


def _stale(why: str) -> Refusal:
    return Refusal(
        ReasonCode.STALE, "The request is not for where this run is", why=why[:1].upper() + why[1:]
    )
