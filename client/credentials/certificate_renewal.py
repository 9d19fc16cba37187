"""Keeps a running node's certificate current: renewed in time, shown from the next call on."""

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
"""How long to wait after a renewal that did not come about."""

_log = logging.getLogger("pratique.node")


class RenewalLink(Protocol):
    """What renewal needs of the open channel."""

    def renew(self, request: RenewRequest) -> RenewReply:
        """Have the certificate of this channel replaced."""

    def present(self, *, authority: bytes, key: bytes, certificate: bytes) -> None:
        """Show another certificate from the next call on."""


def kept_pair(home: NodeHome, store: KeyStore) -> KeptPair:
    """Return the node's transport key and certificate."""
    return KeptPair(store, TRANSPORT, home.certificate)


def credentials(
    home: NodeHome, store: KeyStore, clock: Callable[[], datetime], share: float = 0.0
) -> Credentials:
    """Return what the node shows the exchange; `share` is by how much it puts renewals off."""
    return Credentials(kept_pair(home, store), home.authority, clock=clock, share=share)


class CertificateRenewal:
    """Renews, where it is time, and says where it stands."""

    def __init__(
        self, home: NodeHome, held: Credentials, link: RenewalLink, clock: Callable[[], datetime]
    ) -> None:
        self._home, self._held, self._link, self._clock = home, held, link, clock
        self._again: datetime | None = None

    def tend(self) -> None:
        """Renew the certificate, if it is time; what goes wrong is tried again later."""
        now = self._clock()
        if (self._again is not None and now < self._again) or not self._held.due():
            return
        self._again = now + PAUSE
        try:
            presented = self._held.renew(self._link)
        except PratiqueError as fault:
            _log.warning("certificate not renewed", extra={"what": fault.what, "why": fault.why})
            return
        self._show(presented)
        self._again = None

    def ended(self) -> str:
        """Return what to say once the certificate has ended; nothing before that."""
        try:
            self._held.check_current()
        except PratiqueError as fault:
            return str(fault)
        return ""

    def _show(self, presented: Presented) -> None:
        self._link.present(
            authority=presented.authority, key=presented.key, certificate=presented.certificate
        )
        self._pin(presented)
        _log.info("certificate renewed", extra={"until": self._held.ends().isoformat()})

    def _pin(self, presented: Presented) -> None:
        """Let the digest that enrolment compared follow the authority that issues now."""
        settings = self._home.settings()
        if settings.enrolment is None:
            return
        digest = certificate_fingerprint(issuer_among(presented.authority, presented.certificate))
        if digest != settings.enrolment.authority_digest:
            moved = settings.enrolment.model_copy(update={"authority_digest": digest})
            self._home.write_settings(settings.model_copy(update={"enrolment": moved}))
