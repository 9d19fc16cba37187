"""A country's three set-up steps, as functions of view, state and request to state and reply."""

from collections.abc import Mapping

from keys.errors import KeyFault
from keys.hybrid import MLKEM_CIPHERTEXT_BYTES, HybridKey, HybridPublic, encapsulate
from protocols.private_sum import ratchet, setup
from protocols.private_sum.country_state import CountryState, Stage
from protocols.private_sum.country_view import CountryView
from protocols.private_sum.messages import Request, require_current, split_parts
from protocols.proto.round_pb2 import (
    PHASE_BUNDLE,
    PHASE_CONFIRM,
    PHASE_ENCAPSULATE,
    Bundle,
    Confirmations,
    EncapsulationReply,
    Reply,
)
from protocols.wire.document_versions import DocumentVersions
from protocols.wire.signed_message import COORDINATOR, ROSTER, serialise

Step = tuple[CountryState, Reply]


def give_bundle(view: CountryView, state: CountryState, request: Request) -> Step:
    """Make this run's keys and sign their public halves. Raises Refusal ROSTER for other ones."""
    if request.roster != view.terms.roster:
        raise setup.other_roster()
    key = HybridKey.generate()
    bundle = Bundle(
        x25519=key.public.x25519, mlkem=key.public.mlkem, versions=view.versions.to_proto()
    )
    body = serialise(bundle)
    signed = view.sign(PHASE_BUNDLE, view.terms.context, ROSTER, body)
    after = {"stage": Stage.BUNDLED, "key": key.to_bytes(), "bundle_bodies": {view.country: body}}
    return state.model_copy(update=after), Reply(bundle=signed)


def give_encapsulations(view: CountryView, state: CountryState, request: Request) -> Step:
    """Check every country's bundle, encapsulate to the higher ones and sign the digests of both."""
    terms, own = view.terms, state.bundle_bodies[view.country]
    messages = request.body.encapsulate.bundles
    bodies = view.open_roster(messages, terms.roster, PHASE_BUNDLE, terms.context, own)
    public = {c: _checked_keys(view, c, body) for c, body in bodies.items()}
    digests = {c: setup.bundle_digest(terms, c, body) for c, body in bodies.items()}
    encapsulated = {c: encapsulate(public[c]) for c in setup.higher(terms, view.country)}
    ciphertexts = {c: ciphertext for c, (ciphertext, _) in encapsulated.items()}
    body = serialise(setup.encapsulations(terms, view.country, digests, ciphertexts))
    after = {
        "stage": Stage.ENCAPSULATED,
        "bundle_bodies": bodies,
        "bundles": digests,
        "kem_secrets": {c: secret for c, (_, secret) in encapsulated.items()},
        "encapsulation": body,
    }
    signed = view.sign(PHASE_ENCAPSULATE, terms.context, ROSTER, body)
    reply = EncapsulationReply(signed=signed, ciphertexts=b"".join(ciphertexts.values()))
    return state.model_copy(update=after), Reply(encapsulation=reply)


def give_confirmations(view: CountryView, state: CountryState, request: Request) -> Step:
    """Check the ciphertexts, derive every pair's secret, and make a MAC for every other country.

    The new state no longer has the run's private keys and encapsulated secrets.
    """
    terms, own = view.terms, state.encapsulation
    messages = request.body.confirm.encapsulations
    bodies = view.open_roster(messages, terms.roster, PHASE_ENCAPSULATE, terms.context, own)
    secrets = _pair_secrets(view, state, bodies, _ciphertexts(view, request))
    transcript = setup.transcript(terms, state.bundles, [bodies[c] for c in terms.roster])
    macs = {c: ratchet.confirmation(s, transcript, view.country, c) for c, s in secrets.items()}
    after = CountryState(
        run=state.run,
        stage=Stage.CONFIRMED,
        bundles=state.bundles,
        transcript=transcript,
        expected={
            c: ratchet.confirmation(s, transcript, c, view.country) for c, s in secrets.items()
        },
        links={c: ratchet.first_link(s, transcript, view.country, c) for c, s in secrets.items()},
    )
    body = serialise(Confirmations(macs=b"".join(macs.values())))
    signed = view.sign(PHASE_CONFIRM, terms.context, COORDINATOR, body)
    return after, Reply(confirmation=signed)


def _checked_keys(view: CountryView, country: str, body: bytes) -> HybridPublic:
    bundle = setup.read_bundle(body)
    require_current(view.versions, DocumentVersions.from_proto(bundle.versions), country)
    return setup.public_keys(bundle, country)


def _ciphertexts(view: CountryView, request: Request) -> dict[str, bytes]:
    lower = setup.lower(view.terms, view.country)
    return split_parts(request.parts, lower, MLKEM_CIPHERTEXT_BYTES)


def _pair_secrets(
    view: CountryView,
    state: CountryState,
    bodies: Mapping[str, bytes],
    ciphertexts: Mapping[str, bytes],
) -> dict[str, bytes]:
    """Return the secret with each other country; `bodies` are the signed encapsulations."""
    terms, key = view.terms, HybridKey.from_bytes(state.key)
    signed = {
        c: setup.read_encapsulations(terms, c, state.bundles, body) for c, body in bodies.items()
    }
    secrets = {}
    for peer in view.others:
        pair = setup.ordered(view.country, peer)
        digest = signed[pair[0]][pair[1]]
        kem = state.kem_secrets.get(peer) or _decapsulated(
            view, key, peer, ciphertexts[peer], digest
        )
        both = (_exchanged(key, peer, state.bundle_bodies[peer]), kem)
        secrets[peer] = setup.pair_secret(terms, pair, state.bundles, both, digest)
    return secrets


def _decapsulated(
    view: CountryView, key: HybridKey, sender: str, ciphertext: bytes, digest: bytes
) -> bytes:
    if setup.ciphertext_digest(view.terms, sender, view.country, ciphertext) != digest:
        raise setup.refuse_party(sender, "a ciphertext is not the one it signed")
    try:
        return key.decapsulate(ciphertext)
    except KeyFault as fault:
        raise setup.refuse_party(sender, "its ciphertext has the wrong length") from fault


def _exchanged(key: HybridKey, peer: str, body: bytes) -> bytes:
    try:
        return key.exchange(setup.public_keys(setup.read_bundle(body), peer))
    except KeyFault as fault:
        raise setup.refuse_party(peer, "its X25519 key gives no shared secret") from fault
