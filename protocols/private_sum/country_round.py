"""A country's part in one round, as functions of view, state and request to state and reply."""

import hmac
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from keys.derive import HASH_BYTES
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
    shares_of_seed,
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
    require_current,
    split_parts,
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
"""Largest step from a country's last round to the next: each round advances its chains once."""

NOTHING = bytes(SHARE_BYTES)
"""Sent in place of a share that did not open, or is not the one that its owner committed to."""

Step = tuple[CountryState, Reply]


def admit(view: CountryView, state: CountryState, request: Request) -> RoundTerms:
    """Check a contribute request in full, and return the terms of the round that it opens.

    The terms come from this country's documents; only round number, kind and model come from the
    request. Raises Refusal.
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


def contribute(
    view: CountryView,
    state: CountryState,
    terms: RoundTerms,
    values: NDArray[np.int64],
    masker: Masker,
    entropy: shares.Entropy,
) -> tuple[CountryState, Contribution, NDArray[np.uint64]]:
    """Mask `values` (d,), noise included, for an admitted round, and split the seed into shares.

    Returns the new state, the contribution, and the masked words (words,). The state holds no seed
    and no mask key of a later round; its chains are at the next round.
    """
    links = _advanced(view, state, terms.round_number - state.round_number - 1)
    context, me = terms.context, view.country
    pair_keys = {c: ratchet.mask_key(link, context, me, c) for c, link in links.items()}
    seed = shares.draw_element(entropy)
    words = masked_words(terms, me, seed, pair_keys, values, masker)
    shares_by_holder = shares_of_seed(terms, seed, entropy)
    commitments, versions = commitments_of(context, me, shares_by_holder), view.versions.to_proto()
    head = ContributionHead(
        round=terms.round_number,
        versions_digest=versions_digest(versions),
        words_digest=words_digest(terms, me, words.data.cast("B")),
        seed_commitment=shares.commit(context, me, ROSTER, seed),
        commitments_digest=commitments_digest(context, me, commitments),
    )
    body = serialise(head)
    contribution = Contribution(
        head=view.sign(PHASE_CONTRIBUTE, context, ROSTER, body),
        shares=_sealed(view, context, links, shares_by_holder, head.seed_commitment),
        commitments=commitments,
        versions=versions,
    )
    opened = OpenRound(
        context=context,
        round_number=terms.round_number,
        head=body,
        own_share=shares_by_holder[me],
        seals={c: ratchet.sealing_key(link, context, c, me) for c, link in links.items()},
        masks=pair_keys,
    )
    return _after(view, state, terms, links, opened), contribution, words


def agree(view: CountryView, state: CountryState, request: Request) -> Step:
    """Sign the set, smaller than the roster, that the coordinator names; once a round.

    The new state no longer has the mask keys with countries in the set, so this country can answer
    for no other set. Raises Refusal: ROSTER for a set that may not be opened, STALE if no round or
    another one is open, or if this country has signed a set in it.
    """
    opened = _require_open(state, request)
    view.trust(request, PHASE_AGREE, opened.context)
    chosen = require_set(view.terms, view.country, request.body.agree.countries)
    require_unsigned(view.terms, opened, chosen)
    body = assent_body(opened.round_number, chosen)
    signed = view.sign(PHASE_AGREE, opened.context, ROSTER, body)
    outside = {country: key for country, key in opened.masks.items() if country not in chosen}
    after = opened.model_copy(update={"agreed": chosen, "masks": outside})
    return state.model_copy(update={"open_round": after}), Reply(assent=signed)


def answer(view: CountryView, state: CountryState, request: Request) -> Step:
    """Return this country's shares for U, and the keys of its masks with countries outside U.

    The new state has none of them. Raises Refusal: ROSTER for a U that may not be opened, STALE if
    no round or another one is open.
    """
    opened = _require_open(state, request)
    view.trust(request, PHASE_ANSWER, opened.context)
    content = request.body.answer
    chosen = require_set(view.terms, view.country, content.countries)
    require_agreed(view, opened, chosen, content.assents)
    heads = _heads(view, opened, chosen, content)
    others = [country for country in chosen if country != view.country]
    by_owner = _opened_shares(view, opened, heads, split_parts(request.parts, others, SEALED_BYTES))
    compared = bool(request.commitments)
    if compared:
        commitments = split_parts(request.commitments, others, HASH_BYTES)
        by_owner = _committed(view, opened, by_owner, commitments)
    unopenable = [country for country in chosen if country not in by_owner]
    answer = Answer(
        round=opened.round_number,
        shares=b"".join(by_owner.get(country, NOTHING) for country in chosen),
        unopenable=unopenable,
        masks=b"".join(opened.masks[c] for c in view.terms.roster if c not in chosen),
        compared=compared,
        keys=b"".join(opened.seals[owner] for owner in unopenable if compared),
    )
    signed = view.sign(PHASE_ANSWER, opened.context, COORDINATOR, serialise(answer))
    return state.model_copy(update={"open_round": None}), Reply(answer=signed)


def _require_open(state: CountryState, request: Request) -> OpenRound:
    if state.open_round is None:
        raise _stale("no round is open: this country has answered it, or did not contribute to it")
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
            why="no more were charged for the signed schedule; a void round counts",
        )


def _require_confirmed(state: CountryState, request: Request) -> None:
    if state.stage is Stage.READY:
        return
    macs = split_parts(request.parts, sorted(state.expected), MAC_BYTES)
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
    shares_by_holder: Mapping[str, bytes],
    seed_commitment: bytes,
) -> bytes:
    me, sealed = view.country, []
    for peer in view.others:
        key = ratchet.sealing_key(links[peer], context, me, peer)
        sealed.append(seal_share(context, key, me, peer, shares_by_holder[peer], seed_commitment))
    return b"".join(sealed)


def _after(
    view: CountryView,
    state: CountryState,
    terms: RoundTerms,
    links: Mapping[str, bytes],
    opened: OpenRound,
) -> CountryState:
    next_links = {
        peer: ratchet.advance(link, state.transcript, view.country, peer, 1)
        for peer, link in links.items()
    }
    used = {**state.used, terms.phase_kind: state.used.get(terms.phase_kind, 0) + 1}
    after = {"stage": Stage.READY, "expected": {}, "links": next_links, "used": used}
    return state.model_copy(
        update={**after, "round_number": terms.round_number, "open_round": opened}
    )


def _heads(
    view: CountryView, opened: OpenRound, chosen: Sequence[str], content: AnswerRequest
) -> dict[str, ContributionHead]:
    """Check and return the heads of U. Versions that many countries have are sent only once."""
    context, own = opened.context, opened.head
    bodies = view.open_roster(content.heads, chosen, PHASE_CONTRIBUTE, context, own)
    heads = {c: read_head(body) for c, body in bodies.items()}
    if any(head.round != opened.round_number for head in heads.values()):
        raise malformed("it has a head that is signed for another round")
    senders = {head.versions_digest: country for country, head in heads.items()}
    if [versions_digest(claimed) for claimed in content.versions] != sorted(senders):
        raise malformed("it does not have the document versions of the countries' heads")
    for expected, claimed in zip(sorted(senders), content.versions, strict=True):
        require_current(view.versions, DocumentVersions.from_proto(claimed), senders[expected])
    return heads


def _opened_shares(
    view: CountryView,
    opened: OpenRound,
    heads: Mapping[str, ContributionHead],
    sealed: Mapping[str, bytes],
) -> dict[str, bytes]:
    """Return the shares that open, by owner, in the order of the heads."""
    by_owner = {}
    for owner, head in heads.items():
        share: bytes | None = opened.own_share
        if owner != view.country:
            key = opened.seals[owner]
            commitment, me = head.seed_commitment, view.country
            share = open_share(opened.context, key, owner, me, sealed[owner], commitment)
        if share is not None:
            by_owner[owner] = share
    return by_owner


def _committed(
    view: CountryView,
    opened: OpenRound,
    by_owner: Mapping[str, bytes],
    commitments: Mapping[str, bytes],
) -> dict[str, bytes]:
    """Return the shares that are those which their owners committed to, and this country's own."""
    me, context = view.country, opened.context
    return {
        owner: share
        for owner, share in by_owner.items()
        if owner == me or shares.commit(context, owner, me, share) == commitments[owner]
    }


def _stale(why: str) -> Refusal:
    return Refusal(ReasonCode.STALE, "The request does not fit the state of this run", why=why)
