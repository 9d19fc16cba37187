"""The secrets in a node's key store, by name; each serves one purpose only."""

import os
from dataclasses import dataclass
from typing import Self

from governance.audit.log_key import LogKey
from keys.certificates import new_node_auth_key, new_transport_key
from keys.composite import CompositeSigningKey, Identity, identity_from_bytes
from keys.identity import SigningKey
from keys.sealing import KEY_BYTES
from keys.store import KeyStore

IDENTITY, LOG = "identity", "log"
TRANSPORT, NODE_AUTH = "transport", "node-auth"
SEALING, SPLIT = "run-state", "held-out"


@dataclass(frozen=True, repr=False)
class NodeKeyring:
    """The unlocked secrets of a node. They are never printed.

    `transport_key` and `node_auth_key` are PEM. `sealing_key` seals run states. `split_key` is the
    key of the hash that decides which patients are held out of training. `signs_state` is whether
    the state database was ever signed: then an unsigned one is refused.
    """

    identity: Identity
    log_key: SigningKey
    transport_key: bytes
    node_auth_key: bytes
    sealing_key: bytes
    split_key: bytes
    signs_state: bool = True

    @classmethod
    def create(cls, store: KeyStore) -> tuple[Self, str]:
        """Make and store the secrets of a new node; also return node_auth's OpenSSH public line."""
        node_auth, public_line = new_node_auth_key()
        secrets = {
            IDENTITY: CompositeSigningKey.generate().to_bytes(),
            TRANSPORT: new_transport_key(),
            NODE_AUTH: node_auth,
            SEALING: os.urandom(KEY_BYTES),
            SPLIT: os.urandom(KEY_BYTES),
        }
        for name, secret in secrets.items():
            store.put(name, secret)
        LogKey.create(store, LOG)
        return cls.load(store), public_line

    @classmethod
    def load(cls, store: KeyStore) -> Self:
        """Read the secrets. Raises KeyFault that names one that is missing or changed."""
        log_key = LogKey.load(store, LOG)
        return cls(
            identity=identity_from_bytes(store.get(IDENTITY)),
            log_key=log_key.key,
            transport_key=store.get(TRANSPORT),
            node_auth_key=store.get(NODE_AUTH),
            sealing_key=store.get(SEALING),
            split_key=store.get(SPLIT),
            signs_state=log_key.signs_heads,
        )

    @staticmethod
    def note_signed_state(store: KeyStore) -> None:
        """Store that the state database is signed from now on."""
        LogKey.load(store, LOG).note_signed(store, LOG)
