"""The coordinator's side of a run's set-up: ask every country, check what it says, pass it on.

Order: `bundle_request` to every country and `take_bundle` from each; likewise `encapsulate_request`
and `take_encapsulation`, `confirm_request` and `take_confirmation`; then `begin_round` for each
round. Replies may come in any order within a phase; a repeated identical reply changes nothing.
Everything sent is determined by the constructor's values and the replies taken, so that a
coordinator that was killed sends the same bytes again when it is fed the same replies.
"""

from collections.abc import Mapping

from keys.composite import PublicIdentity
from protocols.encoding import digest
from protocols.errors import ProtocolFault
from protocols.private_sum import setup
from protocols.private_sum.context import DocumentVersions, RoundTerms, RunTerms
from protocols.private_sum.desk import Desk, keep
from protocols.private_sum.messages import parcels, read_reply, unpack_parcels
from protocols.private_sum.opening import CoordinatorRound
from protocols.proto.round_pb2 import (
    PHASE_BUNDLE,
    PHASE_CONFIRM,
    PHASE_ENCAPSULATE,
    BundleRequest,
    Confirmations,
    ConfirmRequest,
    EncapsulateRequest,
    Parcel,
    Phase,
    RequestBody,
    Signed,
)
from protocols.signed import COORDINATOR, ROSTER, Signer, parse


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
    ) -> None:
        self._desk = Desk(terms, peers, sign, versions)
        self._bundles: dict[str, Signed] = {}
        self._encapsulations: dict[str, Signed] = {}
        self._ciphertexts: dict[str, dict[str, bytes]] = {}
        self._macs: dict[str, dict[str, bytes]] = {}
        self._confirmations: dict[str, list[Parcel]] = {}
        self._round_number = 0

    @property
    def terms(self) -> RunTerms:
        """The run's terms as the coordinator reads them."""
        return self._desk.terms

    def bundle_request(self, country: str) -> bytes:
        """Return set-up request 1 for a country."""
        content = RequestBody(bundle=BundleRequest(roster=self.terms.roster))
        return self._request(country, PHASE_BUNDLE, content)

    def take_bundle(self, country: str, reply: bytes) -> None:
        """Take a country's signed keys."""
        signed = read_reply(reply, country, "bundle").bundle
        body = self._desk.open(signed, country, PHASE_BUNDLE, self.terms.context, ROSTER)
        setup.public_keys(setup.read_bundle(body), country)
        keep(self._bundles, country, signed)

    def encapsulate_request(self, country: str) -> bytes:
        """Return set-up request 2. Raises ProtocolFault while a bundle is missing."""
        self._desk.require_all(self._bundles)
        bundles = [self._bundles[one] for one in self.terms.roster]
        content = RequestBody(encapsulate=EncapsulateRequest(bundles=bundles))
        return self._request(country, PHASE_ENCAPSULATE, content)

    def take_encapsulation(self, country: str, reply: bytes) -> None:
        """Take a country's ciphertexts, each checked against the digest that it signed."""
        said = read_reply(reply, country, "encapsulation").encapsulation
        body = self._desk.open(said.signed, country, PHASE_ENCAPSULATE, self.terms.context, ROSTER)
        signed = setup.read_encapsulations(self.terms, country, self._bundle_digests(), body)
        given = unpack_parcels(said.ciphertexts, setup.higher(self.terms, country))
        for receiver, ciphertext in given.items():
            made = setup.ciphertext_digest(self.terms, country, receiver, ciphertext)
            if made != signed[receiver]:
                raise setup.refuse_party(country, "a ciphertext is not the one it signed")
        keep(self._encapsulations, country, said.signed)
        self._ciphertexts[country] = given

    def confirm_request(self, country: str) -> bytes:
        """Return set-up request 3. Raises ProtocolFault while ciphertexts are missing."""
        self._desk.require_all(self._encapsulations)
        self._desk.require_known(country)
        addressed = {
            sender: self._ciphertexts[sender][country]
            for sender in setup.lower(self.terms, country)
        }
        signed = [self._encapsulations[one] for one in self.terms.roster]
        content = ConfirmRequest(encapsulations=signed, ciphertexts=parcels(addressed))
        return self._request(country, PHASE_CONFIRM, RequestBody(confirm=content))

    def take_confirmation(self, country: str, reply: bytes) -> None:
        """Take a country's MACs; they travel on with the contribute requests."""
        signed = read_reply(reply, country, "confirmation").confirmation
        body = self._desk.open(signed, country, PHASE_CONFIRM, self.terms.context, COORDINATOR)
        others = [one for one in self.terms.roster if one != country]
        said = parse(Confirmations, body, setup.LARGEST_BODY)
        keep(self._macs, country, unpack_parcels(said.confirmations, others))

    def begin_round(
        self,
        round_number: int,
        phase_kind: str,
        model: bytes,
        *,
        asked: tuple[str, ...] | None = None,
    ) -> CoordinatorRound:
        """Open a round on a model or query.

        Round numbers rise; a void round's number is not used again. `asked` is given only where
        this very round was begun before and closed on fewer countries than the roster: on these.
        Raises ProtocolFault, and Refusal for a kind of round that the study does not have.
        """
        self._desk.require_all(self._macs)
        if round_number <= self._round_number:
            raise ProtocolFault("A round number was used before")
        terms = self._round_terms(round_number, phase_kind, model)
        self._confirmations = self._confirmations or self._addressed()
        given = (self._desk, terms, model, self._confirmations)
        opened = CoordinatorRound(*given, asked or self.terms.roster)
        self._round_number = round_number
        return opened

    def _addressed(self) -> dict[str, list[Parcel]]:
        """Return the MACs for each country, from all the others."""
        given = sorted(self._macs.items())
        return {
            one: parcels({other: to[one] for other, to in given if other != one})
            for one in self.terms.roster
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
        self._desk.require_all(self._bundles)
        return {
            country: setup.bundle_digest(self.terms, country, signed.body)
            for country, signed in self._bundles.items()
        }

    def _request(self, country: str, phase: Phase, content: RequestBody) -> bytes:
        return self._desk.request(country, phase, self.terms.context, content)
