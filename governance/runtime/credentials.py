"""A party's transport key and certificate, replaced while they are in use.

A new key is stored before anybody learns of it. The certificate's file decides which key counts:
after a crash between any two writes, key and certificate still fit together, and the next change
completes the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from governance.runtime.files import write_atomic
from keys.certificates import Peer, new_transport_key, peer_of, public_pem
from keys.errors import KeyFault, reason_of
from keys.renewal import certified_key, ends_of, renewal_due, renewal_proof, serial_of
from keys.store import KeyStore
from keys.succession import followed
from protocols.proto.exchange_pb2 import RenewReply, RenewRequest

NEXT = "-next"
"""Ending of the name of a key that waits for its certificate."""
ENROL_AGAIN = (
    "ask the coordinator for a new invitation, and run `enrol` with it; keys, log and documents "
    "stay as they are"
)


class KeptPair:
    """A key in a key store, its certificate in a file, and possibly the next key."""

    def __init__(self, store: KeyStore, name: str, certificate_file: Path) -> None:
        self._store, self._name, self._file = store, name, certificate_file

    @property
    def certificate(self) -> bytes:
        """The certificate, PEM. Raises KeyFault if there is none."""
        try:
            return self._file.read_bytes()
        except OSError as error:
            why = f"{self._file}: {reason_of(error)}"
            raise KeyFault("There is no certificate", why=why, fix=ENROL_AGAIN) from None

    def load(self) -> tuple[bytes, bytes]:
        """Return key and certificate, PEM; changes nothing.

        Raises KeyFault if no key fits the certificate.
        """
        certificate = self.certificate
        name = self._name_of(certified_key(certificate))
        if name is None:
            raise KeyFault(
                f"No key here fits the certificate in {self._file}",
                why="one of them was restored from another backup",
                fix=f"restore both from the same one, or {ENROL_AGAIN}",
            )
        return self._store.get(name), certificate

    def next_key(self) -> bytes:
        """Return the key that waits for a certificate; create it if there is none."""
        waiting = self._name + NEXT
        if self._is_certified(waiting):
            self._put_in_place()
        if waiting not in self._store.names():
            self._store.put(waiting, new_transport_key())
        return self._store.get(waiting)

    def keep(self, certificate: bytes) -> None:
        """Store the certificate of the waiting key; from now on this pair is in use."""
        write_atomic(self._file, certificate)
        self._put_in_place()

    def _name_of(self, public_key: bytes) -> str | None:
        stored = self._store.names()
        names = [name for name in (self._name, self._name + NEXT) if name in stored]
        return next((n for n in names if public_pem(self._store.get(n)) == public_key), None)

    def _is_certified(self, waiting: str) -> bool:
        """Whether a crash happened after the certificate was stored, before the key was moved."""
        if waiting not in self._store.names() or not self._file.exists():
            return False
        return public_pem(self._store.get(waiting)) == certified_key(self.certificate)

    def _put_in_place(self) -> None:
        waiting = self._name + NEXT
        self._store.put(self._name, self._store.get(waiting))
        self._store.delete(waiting)


class Renewing(Protocol):
    """The exchange's call for renewal; `protocols.wire.channel.ExchangeLink` has it."""

    def renew(self, request: RenewRequest) -> RenewReply:
        """Ask for a new certificate in place of this channel's certificate."""


@dataclass(frozen=True, repr=False)
class Presented:
    """What a party presents to open a channel, all PEM. No repr, because the key is secret."""

    authority: bytes
    key: bytes
    certificate: bytes


class Credentials:
    """An enrolled party's credentials for the exchange, and their renewal."""

    def __init__(
        self,
        pair: KeptPair,
        authority_file: Path,
        *,
        clock: Callable[[], datetime],
        share: float = 0.0,
    ) -> None:
        """`share`, from 0 to 1, is how long this party delays its renewals."""
        self._pair, self._authority, self._clock, self._share = pair, authority_file, clock, share

    def presented(self) -> Presented:
        """Return what to present. Raises KeyFault if there is none, or it has expired."""
        key, certificate = self._pair.load()
        self.check_current()
        return Presented(self._authority.read_bytes(), key, certificate)

    def check_current(self) -> None:
        """Raise KeyFault if the certificate has expired."""
        now, ends = self._clock(), self.ends()
        if now >= ends:
            raise KeyFault(
                f"Your certificate expired on {ends:%Y-%m-%d}",
                why="it is renewed in time only if the exchange can be reached; this machine's "
                f"clock says {now:%Y-%m-%d}",
                fix=f"if the clock is right, {ENROL_AGAIN}",
            )

    def ends(self) -> datetime:
        """Return when the certificate expires."""
        return ends_of(self._pair.certificate)

    def due(self) -> bool:
        """Return whether it is time to renew."""
        return renewal_due(self._pair.certificate, self._clock(), self._share)

    def renew(self, link: Renewing) -> Presented:
        """Get a certificate for a new key; return what to present from now on.

        The old pair stays in use until the new pair is stored. Raises KeyFault, LinkFault.
        """
        _, old = self._pair.load()
        key = self._pair.next_key()
        proof = renewal_proof(key, serial_of(old))
        reply = link.renew(RenewRequest(public_key=public_pem(key), proof=proof))
        authority = self._checked(old, key, reply)
        write_atomic(self._authority, authority)
        self._pair.keep(reply.certificate)
        return Presented(authority, key, reply.certificate)

    def _checked(self, old: bytes, key: bytes, reply: RenewReply) -> bytes:
        """Return the authorities to trust, if the reply renews this party's certificate."""
        now, trusted = self._clock(), self._authority.read_bytes()
        authority = followed(trusted, reply.authority, reply.succession, now)
        before = peer_of(old, authority_pem=trusted, now=now, revoked=())
        after = peer_of(reply.certificate, authority_pem=authority, now=now, revoked=())
        if _party_of(before) != _party_of(after) or certified_key(reply.certificate) != public_pem(
            key
        ):
            raise KeyFault(
                "The exchange's answer to a renewal is not for this party",
                why=f"it is for the {after.role} of {after.country} in {after.federation}, or "
                "for another key",
                fix="nothing was changed; notify the coordinator",
            )
        return authority


def _party_of(peer: Peer) -> tuple[str, str, str]:
    return peer.federation, peer.country, peer.role
