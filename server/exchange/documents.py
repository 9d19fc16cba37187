"""Serves the document store to the parties, and accepts the officers' submissions."""

import logging
from collections import deque
from collections.abc import Callable
from datetime import datetime
from threading import Lock

from governance.errors import FileFault, StorageFault
from governance.trust.ceremony import Draft
from governance.trust.repository import Repository
from governance.trust.state import TIMESTAMP_NAME
from keys.certificates import Peer
from keys.errors import PratiqueError, reason_of
from keys.identity import SigningKey
from protocols.proto.exchange_pb2 import SubmitRequest
from server.errors import CoordinatorFault
from server.home import NextKeys
from server.key_rotation import agreement_names

DRAFT = "draft"
_log = logging.getLogger("pratique.documents")


class ExchangeDocuments:
    """Published files, the draft that waits for signatures, and submissions of officers."""

    def __init__(
        self,
        repository: Repository,
        *,
        document_key: SigningKey,
        online_key: SigningKey,
        clock: Callable[[], datetime],
        on_change: Callable[[str], None],
        next_keys: NextKeys | None = None,
    ) -> None:
        """`on_change` takes a sentence that says what was published.

        `next_keys` are the coordinator's new keys, if any; see server/key_rotation.py.
        """
        self._repository, self._clock = repository, clock
        self._document_key, self._online_key = document_key, online_key
        self._on_change = on_change
        self._next_keys = next_keys
        self.uses_next_keys = False
        """Whether documents are signed with the next keys; the rest of the daemon uses the old."""
        self._unreported, self._reporting = deque[str](), Lock()
        self.not_renewed = ""
        """Why the timestamp was not renewed when it was due; empty if it was."""

    def fetch(self, path: str) -> bytes | None:
        """Return a published file or the draft; None if it does not exist or cannot be read."""
        try:
            return (
                self._repository.current_draft() if path == DRAFT else self._repository.read(path)
            )
        except OSError as error:  # the other files are served, so that one party is absent, not all
            _log.error("a published file cannot be read", extra={"why": reason_of(error)})
            return None

    def submit(self, peer: Peer, kind: int, content: bytes) -> None:
        """Accept an officer's submission. Raises DocumentFault or CoordinatorFault if refused."""
        try:
            self._submit(peer, kind, content)
        except (FileFault, StorageFault, OSError) as error:
            details = {"country": peer.country, "why": _reason(error)}
            _log.error("a submission cannot be stored", extra=details)
            raise _not_stored() from None

    def is_renewal(self, peer: Peer, kind: int, content: bytes) -> bool:
        """Return whether an officer only signs again what is published for its country."""
        try:
            return kind == SubmitRequest.COUNTRY_BUNDLE and self._repository.is_renewal(
                content, by=peer.country
            )
        except (PratiqueError, OSError):
            return False

    def _submit(self, peer: Peer, kind: int, content: bytes) -> None:
        if kind == SubmitRequest.COUNTRY_BUNDLE:
            self._accept_bundle(peer, content)
        elif kind == SubmitRequest.DRAFT_SIGNATURES:
            self._accept_signatures(peer, content)
        else:
            raise CoordinatorFault(
                "This kind of submission is unknown",
                why=f"its number is {kind}",
                fix="use a program of the coordinator's version",
            )

    def refresh(self) -> None:
        """Sign a new timestamp, if an agreement is published. `not_renewed` says why it failed."""
        try:
            if self._repository.read(TIMESTAMP_NAME) is not None:
                self._repository.refresh(self._clock(), online_key=self._online_key)
        except Exception as error:  # noqa: BLE001 - whatever is wrong, the next attempt may succeed
            self.not_renewed = _reason(error)
            _log.error("the timestamp was not renewed", extra={"why": self.not_renewed})
            return
        self.not_renewed = ""
        self._remove_unused()

    def _remove_unused(self) -> None:
        try:
            self._repository.remove_unused()
        except Exception as error:  # noqa: BLE001 - this must not stop the next refresh
            _log.warning("unused files were not removed", extra={"why": _reason(error)})

    def _accept_bundle(self, peer: Peer, content: bytes) -> None:
        version = self._repository.accept_country(
            content, self._clock(), online_key=self._online_key, by=peer.country
        )
        if version is not None:
            self._report(f"documents of {peer.country}, version {version}")
        self._propose_new_keys()

    def _propose_new_keys(self) -> None:
        """Prepare the agreement for signature with the keys that countries have announced.

        A draft that waits for signatures is not replaced: the new keys wait for the next one.
        """
        countries = ", ".join(self._repository.announced_keys())
        if countries and self._repository.current_draft() is None:
            self._repository.draft_renewal(self._clock())
            _log.info("agreement laid out for new keys", extra={"country": countries})

    def _accept_signatures(self, peer: Peer, content: bytes) -> None:
        status = self._repository.add_signatures(content)
        _log.info("draft signed", extra={"country": peer.country, "needed": status.needed})
        if status.ready and not status.unsigned:
            self.publish()

    def publish(self) -> None:
        """Publish the draft. Raises DocumentFault if too few countries have signed it."""
        self._use_named_keys()
        versions = self._repository.publish(
            self._clock(), document_key=self._document_key, online_key=self._online_key
        )
        self._report(f"agreement, root version {versions.root}")

    def _report(self, change: str) -> None:
        """Report what was published; what a full disk has kept from the log goes first."""
        with self._reporting:
            self._unreported.append(change)
            while self._unreported:
                self._on_change(self._unreported[0])
                self._unreported.popleft()

    def _use_named_keys(self) -> None:
        """Sign with the next keys from now on, if the draft names them."""
        draft, next_keys = self._repository.current_draft(), self._next_keys
        if draft is None or next_keys is None:
            return
        if agreement_names(Draft.from_canonical(draft).agreement, next_keys):
            self._document_key, self._online_key = next_keys.document_key, next_keys.online_key
            self.uses_next_keys = True


def _not_stored() -> CoordinatorFault:
    return CoordinatorFault(
        "The exchange cannot store documents now",
        why="its disk refused the operation, or another program holds its store",
        fix="call the coordinator, whose log says more, and send them again later",
    )


def _reason(error: Exception) -> str:
    if isinstance(error, PratiqueError):
        return error.sentence
    return reason_of(error) if isinstance(error, OSError) else type(error).__name__
