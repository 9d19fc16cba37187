"""The document store as the exchange hands it out, and what it takes from officers."""

import logging
from collections.abc import Callable
from datetime import datetime

from governance.errors import DocumentFault
from governance.trust.bundle import CountryBundle
from governance.trust.ceremony import Draft
from governance.trust.repository import Repository
from keys.certificates import Peer
from keys.identity import SigningKey
from protocols.proto.exchange_pb2 import SubmitRequest
from server.errors import OperationFault
from server.home import LaterKeys
from server.key_rotation import names

DRAFT = "draft"
_log = logging.getLogger("pratique.documents")


class ExchangeDocuments:
    """Published files, the draft under signature, and submissions of officers."""

    def __init__(
        self,
        repository: Repository,
        *,
        documents: SigningKey,
        online: SigningKey,
        clock: Callable[[], datetime],
        on_change: Callable[[str], None],
        later: LaterKeys | None = None,
    ) -> None:
        """`on_change` is told in a sentence what was published.

        `later` are the coordinator's keys that are to follow; see server/key_rotation.py.
        """
        self._repository, self._clock = repository, clock
        self._documents, self._online, self._on_change = documents, online, on_change
        self._later = later
        self.superseded = False
        """Whether the agreement in force names the later keys: this daemon holds the former."""

    def fetch(self, path: str) -> bytes | None:
        """Return a published file or the draft; None where there is none."""
        return self._repository.current_draft() if path == DRAFT else self._repository.read(path)

    def submit(self, peer: Peer, kind: int, content: bytes) -> None:
        """Take an officer's submission; raises DocumentFault or OperationFault with the reason."""
        if kind == SubmitRequest.COUNTRY_BUNDLE:
            self._take_bundle(peer, content)
        elif kind == SubmitRequest.DRAFT_SIGNATURES:
            self._take_signatures(peer, content)
        else:
            raise OperationFault("This kind of submission is not known here")

    def _take_bundle(self, peer: Peer, content: bytes) -> None:
        country = CountryBundle.from_canonical(content).country
        if country != peer.country:
            raise DocumentFault(
                f"{peer.country} handed in documents of {country}",
                why="an officer hands in its own country's documents only",
            )
        versions = self._repository.accept_country(content, self._clock(), online=self._online)
        self._on_change(f"documents of {country}, version {versions.countries.get(country, 0)}")
        self._lay_out_new_keys()

    def _lay_out_new_keys(self) -> None:
        """Lay the agreement out with the keys that countries have announced.

        A signing that is under way goes on undisturbed: the new keys wait for the next one.
        """
        names = ", ".join(self._repository.announced())
        if names and self._repository.current_draft() is None:
            self._repository.renewal(self._clock())
            _log.info("agreement laid out for new keys", extra={"country": names})

    def _take_signatures(self, peer: Peer, content: bytes) -> None:
        status = self._repository.add_signatures(content)
        _log.info("draft signed", extra={"country": peer.country, "needed": status.needed})
        if status.ready and not status.unsigned:
            self.publish()

    def publish(self) -> None:
        """Publish the draft; DocumentFault where too few have signed it."""
        self._take_later_keys()
        versions = self._repository.publish(
            self._clock(), documents=self._documents, online=self._online
        )
        self._on_change(f"agreement, root version {versions.root}")

    def _take_later_keys(self) -> None:
        """Sign with the keys that the draft names, from its publication on."""
        draft, later = self._repository.current_draft(), self._later
        if draft and later and names(Draft.from_canonical(draft).agreement, later):
            self._documents, self._online = later.documents, later.online
            self.superseded = True
