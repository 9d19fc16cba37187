"""A node's new keys, signed by its former identity key: whoever had that key made the new ones.

The new identity key signs too, so that nobody claims a key that is not theirs; a key of two halves
signs with both. The statement is for the officer, who vouches for a node's keys. It counts only if
its former key is the one in the officer's documents, so an older statement has no effect.
"""

import base64
from datetime import datetime

from governance.documents.models import IdentityKey, Part, UtcTime
from governance.documents.rotation import SignatureText, verifies
from keys.composite import Identity
from keys.derive import labelled_hash
from protocols.wire.encoding import canonical_json

SUCCESSION_LABEL = "pratique/node-succession/v1"


class NodeSuccession(Part):
    """A statement on a node's new keys, signed by its former and its new identity key."""

    former: IdentityKey
    issued: UtcTime
    by_former: SignatureText
    by_new: SignatureText

    def is_signed(self, new: str, keys: dict[str, str]) -> bool:
        """Whether both signatures over the node's new `keys` are valid; `new` is one of them."""
        message = _message(self.former, self.issued, keys)
        pairs = ((self.former, self.by_former), (new, self.by_new))
        return self.former != new and all(verifies(key, text, message) for key, text in pairs)


def succeeding(
    former: Identity, new: Identity, keys: dict[str, str], issued: datetime
) -> NodeSuccession:
    """Sign `keys`, the new node keys by the names of their fields, with both identity keys."""
    whole_second = issued.replace(microsecond=0)
    message = _message(former.public.to_text(), whole_second, keys)
    return NodeSuccession(
        former=former.public.to_text(),
        issued=whole_second,
        by_former=base64.b64encode(former.sign(message)).decode(),
        by_new=base64.b64encode(new.sign(message)).decode(),
    )


def _message(former: str, issued: datetime, keys: dict[str, str]) -> bytes:
    fields = {"former": former, "issued": issued.isoformat(), "keys": keys}
    return labelled_hash(SUCCESSION_LABEL, canonical_json(fields))
