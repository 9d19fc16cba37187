"""`pratique-node rotate-keys`: makes a new identity key, which the current key signs.

The new key is in the key store before any file names it. Nothing changes for the node until its
officer has signed the new `node-keys.json`, and the signed documents are published.
"""

from datetime import datetime

from client.credentials.identity_keys import IdentityKeys
from client.home import NodeHome, read_public
from governance.documents.permit import NodeKeys
from governance.documents.succession import succeeding
from governance.runtime.files import write_atomic
from keys.store import KeyStore


def rotate_keys(home: NodeHome, store: KeyStore, now: datetime) -> NodeKeys:
    """Make new public keys for the officer to sign; return them, and write node-keys.json.

    If a new key already waits for its signature, return the same keys again. Raises KeyFault,
    DocumentFault or NodeFault; the next call continues an unfinished one.
    """
    identities = IdentityKeys(store)
    new = identities.prepare_successor()
    content = read_public(home.node_keys, "The node's public keys", "restore node-keys.json")
    before = NodeKeys.from_canonical(content)
    if before.identity_key == new.public.to_text():
        return before
    keys = before.model_copy(update={"identity_key": new.public.to_text(), "succession": None})
    statement = succeeding(identities.current, new, keys.stated(), now)
    signed = NodeKeys.model_validate(
        keys.model_dump() | {"succession": statement.model_dump()}, strict=False
    )
    write_atomic(home.node_keys, signed.canonical())
    return signed
