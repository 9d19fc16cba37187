"""The secrets in a node's key store, by name; each serves one purpose only."""

import os
from dataclasses import dataclass
from typing import Self

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

    `transport` and `node_auth` are PEM. `sealing` seals run states. `split` is the key of the hash
    that decides which patients are held out of training.
    """

    identity: Identity
    log: SigningKey
    transport: bytes
    node_auth: bytes
    sealing: bytes
    split: bytes

    @classmethod
    def create(cls, store: KeyStore) -> tuple[Self, str]:
        """Make and store the secrets of a new node; also return node_auth's OpenSSH public line."""
        node_auth, public_line = new_node_auth_key()
        secrets = {
            IDENTITY: CompositeSigningKey.generate().to_bytes(),
            LOG: SigningKey.generate().to_bytes(),
            TRANSPORT: new_transport_key(),
            NODE_AUTH: node_auth,
            SEALING: os.urandom(KEY_BYTES),
            SPLIT: os.urandom(KEY_BYTES),
        }
        for name, secret in secrets.items():
            store.put(name, secret)
        return cls.load(store), public_line

    @classmethod
    def load(cls, store: KeyStore) -> Self:
        """Read the secrets. Raises KeyFault that names one that is missing or changed."""
        return cls(
            identity=identity_from_bytes(store.get(IDENTITY)),
            log=SigningKey.from_bytes(store.get(LOG)),
            transport=store.get(TRANSPORT),
            node_auth=store.get(NODE_AUTH),
            sealing=store.get(SEALING),
            split=store.get(SPLIT),
        )
