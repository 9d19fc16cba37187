"""The coordinator's side of a run's set-up: sends requests, checks replies and forwards them.

Order: `bundle_request` to every country and `take_bundle` from each; likewise `encapsulate_request`
and `take_encapsulation`, `confirm_request` and `take_confirmation`; then `begin_round` for each
round. Replies may come in any order within a phase; a repeated identical reply changes nothing.
The constructor's arguments and the replies determine every request. So a coordinator that was
killed sends the same bytes again once it has the same replies.
"""

from collections.abc import Callable, Mapping
from functools import cached_property

from keys.composite import PublicIdentity
from keys.hybrid import MLKEM_CIPHERTEXT_BYTES
from protocols.errors import ProtocolFault
from protocols.private_sum import setup
from protocols.private_sum.context import RoundTerms, RunTerms
from protocols.private_sum.coordinator_round import CoordinatorRound
from protocols.private_sum.coordinator_view import CoordinatorView, keep
from protocols.private_sum.messages import (
    MAC_BYTES,
    read_reply,
    split_parts,
    with_parts,
    write_request,
)
from protocols.proto.round_pb2 import (
    PHASE_BUNDLE,
    PHASE_CONFIRM,
    PHASE_ENCAPSULATE,
    BundleRequest,
    Confirmations,
    ConfirmRequest,
    EncapsulateRequest,
    RequestBody,
    Signed,
)
from protocols.wire.document_versions import DocumentVersions
from protocols.wire.encoding import digest
from protocols.wire.signed_message import (
    COORDINATOR,
    ROSTER,
    Signer,
    parse,
)


class CoordinatorRun:
    """One run, from its first request to the last round.

    `take_*` raise ProtocolFault naming the country, and Refusal with its code when it refused.
    """

    def __init__(
        self,
        terms: RunTerms,
        *,
        peers: Mapping[str, PublicIdentity],
        sign: Signer,
        versions: DocumentVersions,
        published: Callable[[], DocumentVersions] | None = None,
    ) -> None:
        """Prepare a run. `versions` are claimed in every request.

        `published` returns the versions published by now; it is called if a country claims newer
        ones.
        """
        self._view = CoordinatorView(terms, peers, sign, versions, published or (lambda: versions))
        self._bundles: dict[str, Signed] = {}
        self._encapsulations: dict[str, Signed] = {}
        self._ciphertexts: dict[str, dict[str, bytes]] = {}
        self._macs: dict[str, dict[str, bytes]] = {}
        self._round_number = 0

    @property
    def terms(self) -> RunTerms:
        """The run's terms as the coordinator reads them."""
        return self._view.terms

    def bundle_request(self, country: str) -> bytes:
        """Return set-up request 1 for a country."""
        self._view.require_known(country)
        return self._request_for_bundles

    def take_bundle(self, country: str, reply: bytes) -> None:
        """Check and store a country's signed keys."""
        signed = read_reply(reply, country, "bundle").bundle
        body = self._view.open(signed, country, PHASE_BUNDLE, self.terms.context, ROSTER)
        bundle = setup.read_bundle(body)
        self._view.require_published(country, DocumentVersions.from_proto(bundle.versions))
        setup.public_keys(bundle, country)
        keep(self._bundles, country, signed)

    def encapsulate_request(self, country: str) -> bytes:
        """Return set-up request 2. Raises ProtocolFault while a bundle is missing."""
        self._view.require_all(self._bundles)
        self._view.require_known(country)
        return self._request_to_encapsulate

    def take_encapsulation(self, country: str, reply: bytes) -> None:
        """Store a country's ciphertexts, each checked with the digest that the country signed."""
        encapsulation = read_reply(reply, country, "encapsulation").encapsulation
        body = self._view.open(
            encapsulation.signed, country, PHASE_ENCAPSULATE, self.terms.context, ROSTER
        )
        signed = setup.read_encapsulations(self.terms, country, self._bundle_digests(), body)
        receivers = setup.higher(self.terms, country)
        ciphertexts = split_parts(encapsulation.ciphertexts, receivers, MLKEM_CIPHERTEXT_BYTES)
        for receiver, ciphertext in ciphertexts.items():
            actual = setup.ciphertext_digest(self.terms, country, receiver, ciphertext)
            if actual != signed[receiver]:
                raise setup.refuse_party(country, "a ciphertext is not the one it signed")
        keep(self._encapsulations, country, encapsulation.signed)
        self._ciphertexts[country] = ciphertexts

    def confirm_request(self, country: str) -> bytes:
        """Return set-up request 3. Raises ProtocolFault while ciphertexts are missing."""
        self._view.require_all(self._encapsulations)
        self._view.require_known(country)
        lower = setup.lower(self.terms, country)
        parts = b"".join(self._ciphertexts[sender][country] for sender in lower)
        return with_parts(self._request_to_confirm, parts)

    def take_confirmation(self, country: str, reply: bytes) -> None:
        """Check and store a country's MACs; contribute requests forward them."""
        signed = read_reply(reply, country, "confirmation").confirmation
        body = self._view.open(signed, country, PHASE_CONFIRM, self.terms.context, COORDINATOR)
        others = [other for other in self.terms.roster if other != country]
        confirmations = parse(Confirmations, body, setup.LARGEST_BODY)
        keep(self._macs, country, split_parts(confirmations.macs, others, MAC_BYTES))

    def begin_round(
        self,
        round_number: int,
        phase_kind: str,
        model: bytes,
        *,
        asked: tuple[str, ...] | None = None,
    ) -> CoordinatorRound:
        """Begin a round with a model or query.

        Round numbers rise; a void round's number is not used again. `asked` is given only if an
        earlier attempt closed this round with fewer countries than the roster: those countries.
        Raises ProtocolFault, and Refusal for a kind of round that the study does not have.
        """
        self._view.require_all(self._macs)
        if round_number <= self._round_number:
            raise ProtocolFault("A round number was used before")
        terms = self._round_terms(round_number, phase_kind, model)
        countries = asked or self.terms.roster
        begun = CoordinatorRound(self._view, terms, model, self._macs_by_receiver, countries)
        self._round_number = round_number
        return begun

    @cached_property
    def _request_for_bundles(self) -> bytes:
        content = RequestBody(bundle=BundleRequest(roster=self.terms.roster))
        return write_request(self._view.ask(PHASE_BUNDLE, self.terms.context, content))

    @cached_property
    def _request_to_encapsulate(self) -> bytes:
        bundles = [self._bundles[country] for country in self.terms.roster]
        content = RequestBody(encapsulate=EncapsulateRequest(bundles=bundles))
        return write_request(self._view.ask(PHASE_ENCAPSULATE, self.terms.context, content))

    @cached_property
    def _request_to_confirm(self) -> bytes:
        signed = [self._encapsulations[country] for country in self.terms.roster]
        content = RequestBody(confirm=ConfirmRequest(encapsulations=signed))
        return write_request(self._view.ask(PHASE_CONFIRM, self.terms.context, content))

    @cached_property
    def _macs_by_receiver(self) -> dict[str, bytes]:
        """The MACs of all other countries for each country."""
        by_sender = [self._macs[sender] for sender in self.terms.roster]
        return {
            receiver: b"".join(macs[receiver] for macs in by_sender if receiver in macs)
            for receiver in self.terms.roster
        }

    def _round_terms(self, round_number: int, phase_kind: str, model: bytes) -> RoundTerms:
        digests = self._bundle_digests()
        bodies = [self._encapsulations[country].body for country in self.terms.roster]
        return RoundTerms(
            run=self.terms,
            bundles=tuple(digests[country] for country in self.terms.roster),
            transcript=setup.transcript(self.terms, digests, bodies),
            round_number=round_number,
            phase_kind=phase_kind,
            model_digest=digest(model),
        )

    def _bundle_digests(self) -> dict[str, bytes]:
        self._view.require_all(self._bundles)
        return {
            country: setup.bundle_digest(self.terms, country, signed.body)
            for country, signed in self._bundles.items()
        }
