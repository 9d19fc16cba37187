"""The coordinator's side of a run's set-up: ask every country, check what it says, pass it on.

Order: `bundle_request` to every country and `take_bundle` from each; likewise `encapsulate_request`
and `take_encapsulation`, `confirm_request` and `take_confirmation`; then `begin_round` for each
round. Replies may come in any order within a phase; a repeated identical reply changes nothing.
Everything sent is determined by the constructor's values and the replies taken, so that a
coordinator that was killed sends the same bytes again when it is fed the same replies.
"""

from collections.abc import Mapping

from keys.identity import VerifyKey
from protocols.private_sum.context import DocumentVersions, RunTerms
from protocols.private_sum.opening import CoordinatorRound
from protocols.signed import Signer


class CoordinatorRun:
    """One run, from its first request to the last round."""

    def __init__(
        self,
        terms: RunTerms,
        *,
        peers: Mapping[str, VerifyKey],
        sign: Signer,
        versions: DocumentVersions,
    ) -> None:
        raise NotImplementedError

    def bundle_request(self, country: str) -> bytes:
        """Return set-up request 1 for a country."""
        raise NotImplementedError

    def take_bundle(self, country: str, reply: bytes) -> None:
        """Take a country's bundle. Raises ProtocolFault naming it, Refusal when it refused."""
        raise NotImplementedError

    def encapsulate_request(self, country: str) -> bytes:
        """Return set-up request 2; every bundle must be there."""
        raise NotImplementedError

    def take_encapsulation(self, country: str, reply: bytes) -> None:
        """Take a country's ciphertexts."""
        raise NotImplementedError

    def confirm_request(self, country: str) -> bytes:
        """Return set-up request 3; every country's ciphertexts must be there."""
        raise NotImplementedError

    def take_confirmation(self, country: str, reply: bytes) -> None:
        """Take a country's MACs; they travel on with the contribute requests."""
        raise NotImplementedError

    def begin_round(self, round_number: int, phase_kind: str, model: bytes) -> CoordinatorRound:
        """Open a round; round numbers rise, and a void round's number is not used again."""
        raise NotImplementedError
