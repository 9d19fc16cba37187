"""A country's part in one round, as functions: view, state and request in; state, reply out."""

import hmac
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from protocols.encoding import digest
from protocols.errors import ReasonCode, Refusal
from protocols.private_sum import ratchet, setup, shares
from protocols.private_sum.context import DocumentVersions, RoundTerms
from protocols.private_sum.contribution import (
    masked_words,
    open_share,
    read_head,
    seal_share,
    share_out,
    words_digest,
)
from protocols.private_sum.masking import Masker
from protocols.private_sum.messages import Request, parcels, require_current, unpack_parcels
from protocols.private_sum.state import OpenRound, RunState, Stage
from protocols.private_sum.view import OwnView
from protocols.proto.round_pb2 import (
    PHASE_ANSWER,
    PHASE_CONTRIBUTE,
    Answer,
    Contribution,
    ContributionHead,
    Reply,
    Signed,
)
from protocols.signed import COORDINATOR, ROSTER, serialise

LARGEST_SKIP = 10_000
"""How far ahead of its last round a country follows: each step moves its chains once."""

Step = tuple[RunState, Reply]


def admitted(view: OwnView, state: RunState, request: Request) -> RoundTerms:
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
    view: OwnView,
    state: RunState,
    terms: RoundTerms,
    values: NDArray[np.int64],
    masker: Masker,
    entropy: shares.Entropy,
) -> Step:
    """Mask `values` (d,), noise included, for an admitted round, and share out the seed.

    The state that comes out holds no mask key and no seed, and its chains stand at the next round.
    """
    links = _advanced(view, state, terms.round_number - state.round_number - 1)
    seed = shares.draw_element(entropy)
    words = masked_words(terms, view.country, (seed, links), values, masker)
    held = share_out(terms, seed, entropy)
    head = _head(view, terms, seed, held, words)
    body = serialise(head)
    reply = Contribution(
        head=view.sign(PHASE_CONTRIBUTE, terms.context, ROSTER, body),
        words=words,
        shares=parcels(_sealed(view, terms, links, held)),
    )
    opened = OpenRound(
        context=terms.context,
        round_number=terms.round_number,
        head=body,
        own_share=held[view.country],
        seals={c: ratchet.sealing_key(links[c], terms.context, c, view.country) for c in links},
    )
    return _after(view, state, terms, links, opened), Reply(contribution=reply)


def answered(view: OwnView, state: RunState, request: Request) -> Step:
    """Give this country's shares for U = roster; the state that comes out has none of them.

    Raises Refusal ROSTER for any other U, and STALE when no round is open (or another one is).
    """
    opened = state.open_round
    if opened is None:
        raise _stale("no round is open: it was answered, or never contributed to")
    view.trust(request, PHASE_ANSWER, opened.context)
    asked = request.body.answer
    if tuple(asked.countries) != view.terms.roster:
        raise setup.other_roster()
    heads = _heads(view, opened, asked.heads)
    sealed = unpack_parcels(asked.shares, view.others)
    given = _opened_shares(view, opened, heads, sealed)
    answer = Answer(
        round=opened.round_number,
        versions=view.versions.to_proto(),
        shares=parcels(given),
        unopenable=[country for country in view.terms.roster if country not in given],
    )
    signed = view.sign(PHASE_ANSWER, opened.context, COORDINATOR, serialise(answer))
    return state.model_copy(update={"open_round": None}), Reply(answer=signed)


def _require_turn(state: RunState, terms: RoundTerms) -> None:
    ahead = terms.round_number - state.round_number
    if ahead < 1:
        raise _stale("this country has contributed to this round, or to a later one")
    if ahead > LARGEST_SKIP:
        raise _stale("the round is too far ahead of the last one that this country knows")
    if state.used.get(terms.phase_kind, 0) >= terms.mechanism.rounds:
        raise Refusal(
            ReasonCode.BUDGET,
            "All rounds of this kind that the study has are used",
            why="The signed schedule was charged for that many; a void round counts",
        )


def _require_confirmed(state: RunState, request: Request) -> None:
    if state.stage is Stage.READY:
        return
    macs = unpack_parcels(request.body.contribute.confirmations, sorted(state.expected))
    for country, expected in state.expected.items():
        if not hmac.compare_digest(macs[country], expected):
            raise setup.refuse_party(country, "its key confirmation does not verify")


def _advanced(view: OwnView, state: RunState, rounds: int) -> dict[str, bytes]:
    return {
        peer: ratchet.advance(link, state.transcript, view.country, peer, rounds)
        for peer, link in state.links.items()
    }


def _head(
    view: OwnView, terms: RoundTerms, seed: bytes, held: Mapping[str, bytes], words: bytes
) -> ContributionHead:
    me, context = view.country, terms.context
    return ContributionHead(
        round=terms.round_number,
        versions=view.versions.to_proto(),
        words_digest=words_digest(terms, me, words),
        seed_commitment=shares.commit(context, me, ROSTER, seed),
        share_commitments=[shares.commit(context, me, c, share) for c, share in held.items()],
    )


def _sealed(
    view: OwnView, terms: RoundTerms, links: Mapping[str, bytes], held: Mapping[str, bytes]
) -> dict[str, bytes]:
    me, context = view.country, terms.context
    return {
        peer: seal_share(
            context, ratchet.sealing_key(links[peer], context, me, peer), me, peer, held[peer]
        )
        for peer in view.others
    }


def _after(
    view: OwnView,
    state: RunState,
    terms: RoundTerms,
    links: Mapping[str, bytes],
    opened: OpenRound,
) -> RunState:
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
    view: OwnView, opened: OpenRound, messages: Sequence[Signed]
) -> dict[str, ContributionHead]:
    bodies = view.open_roster(messages, PHASE_CONTRIBUTE, opened.context, opened.head)
    heads = {c: read_head(body, len(view.terms.roster)) for c, body in bodies.items()}
    for country, head in heads.items():
        require_current(view.versions, DocumentVersions.from_proto(head.versions), country)
    return heads


def _opened_shares(
    view: OwnView,
    opened: OpenRound,
    heads: Mapping[str, ContributionHead],
    sealed: Mapping[str, bytes],
) -> dict[str, bytes]:
    me = view.country
    place = view.terms.roster.index(me)
    given = {me: opened.own_share}
    for owner in view.others:
        commitment = heads[owner].share_commitments[place]
        share = open_share(
            opened.context, opened.seals[owner], owner, me, sealed[owner], commitment
        )
        if share is not None:
            given[owner] = share
    return dict(sorted(given.items()))


def _stale(why: str) -> Refusal:
    return Refusal(
        ReasonCode.STALE, "The request is not for where this run is", why=why[:1].upper() + why[1:]
    )
