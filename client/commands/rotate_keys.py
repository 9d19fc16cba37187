"""New keys for a node: made beside those in use, and vouched for by the one that they follow.

The key lies in the key store before anything names it. Nothing changes for the node until its
officer has signed what is written here, and the signed documents are published.
"""

from datetime import datetime

from client.credentials.identity_keys import IdentityKeys
from client.home import NodeHome, read_public
from governance.documents.permit import NodeKeys
from governance.documents.succession import succeeding
from governance.runtime.files import write_atomic
from keys.store import KeyStore


def rotate_keys(home: NodeHome, store: KeyStore, now: datetime) -> NodeKeys:
    """Return the keys to be signed by the officer, which are in node-keys.json too.

    Given again while they wait, it returns the same. Raises KeyFault, DocumentFault or
    OperationFault; what was begun goes on when it is given again.
    """
    identities = IdentityKeys(store)
    new = identities.prepare()
    content = read_public(home.node_keys, "The node's public keys", "restore node-keys.json")
    before = NodeKeys.from_canonical(content)
    if before.identity_key == new.public.to_text():
        return before
    keys = before.model_copy(update={"identity_key": new.public.to_text(), "succession": None})
    statement = succeeding(identities.present, new, keys.stated(), now)
    signed = NodeKeys.model_validate(
        keys.model_dump() | {"succession": statement.model_dump()}, strict=False
    )
    write_atomic(home.node_keys, signed.canonical())
    return signed
