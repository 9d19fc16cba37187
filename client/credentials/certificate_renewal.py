"""Renews the certificate of a running node, and uses the new one from the next call on."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

from client.credentials.keyring import TRANSPORT
from client.home import NodeHome
from governance.runtime.credentials import Credentials, KeptPair, Presented
from keys.certificates import certificate_fingerprint
from keys.errors import PratiqueError
from keys.store import KeyStore
from keys.succession import issuer_among
from protocols.proto.exchange_pb2 import RenewReply, RenewRequest

PAUSE = timedelta(minutes=10)
"""How long to wait after a failed renewal."""

_log = logging.getLogger("pratique.node")


class RenewalLink(Protocol):
    """The part of the open channel that renewal needs."""

    def renew(self, request: RenewRequest) -> RenewReply:
        """Ask for a new certificate for this channel."""

    def present(self, *, authority: bytes, key: bytes, certificate: bytes) -> None:
        """Use another certificate from the next call on."""


def transport_pair(home: NodeHome, store: KeyStore) -> KeptPair:
    """Return the node's transport key and certificate."""
    return KeptPair(store, TRANSPORT, home.certificate)


def credentials(
    home: NodeHome, store: KeyStore, clock: Callable[[], datetime], share: float = 0.0
) -> Credentials:
    """Return the node's credentials for the exchange; `share` (0 to 1) delays its renewals."""
    return Credentials(transport_pair(home, store), home.authority, clock=clock, share=share)


class CertificateRenewal:
    """Renews the certificate of one node when it is due."""

    def __init__(
        self,
        home: NodeHome,
        credentials: Credentials,
        link: RenewalLink,
        clock: Callable[[], datetime],
    ) -> None:
        self._home, self._credentials = home, credentials
        self._link, self._clock = link, clock
        self._not_before: datetime | None = None

    def renew_if_due(self) -> None:
        """Renew the certificate if it is due; after a fault, try again later."""
        now = self._clock()
        waiting = self._not_before is not None and now < self._not_before
        if waiting or not self._credentials.due():
            return
        self._not_before = now + PAUSE
        try:
            presented = self._credentials.renew(self._link)
        except PratiqueError as fault:
            _log.warning("certificate not renewed", extra={"what": fault.what, "why": fault.why})
            return
        self._use(presented)
        self._not_before = None

    def ended(self) -> str:
        """Return a sentence once the certificate has expired; an empty text before."""
        try:
            self._credentials.check_current()
        except PratiqueError as fault:
            return str(fault)
        return ""

    def _use(self, presented: Presented) -> None:
        self._link.present(
            authority=presented.authority, key=presented.key, certificate=presented.certificate
        )
        self._pin_issuer(presented)
        _log.info("certificate renewed", extra={"until": self._credentials.ends().isoformat()})

    def _pin_issuer(self, presented: Presented) -> None:
        """Store the digest of the authority that issues now in place of the one from enrolment."""
        settings = self._home.settings()
        if settings.enrolment is None:
            return
        digest = certificate_fingerprint(issuer_among(presented.authority, presented.certificate))
        if digest != settings.enrolment.authority_digest:
            enrolment = settings.enrolment.model_copy(update={"authority_digest": digest})
            self._home.write_settings(settings.model_copy(update={"enrolment": enrolment}))
