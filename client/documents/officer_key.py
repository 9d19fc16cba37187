"""The document key of the node's country as this node knows it, and its announced successor.

It starts with the key pinned at `init`. Each key of the officer signs its successor, which counts
once the agreement names it. If another key is pinned in the settings, the chain starts again there.
"""

from typing import Self

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection

from client.state.key_value import get_value, set_value
from governance.documents.models import PublicKey
from governance.documents.rotation import KeyHistory
from governance.errors import DocumentFault
from keys.identity import VerifyKey

OFFICER = "officer-key"
"""The name under which the key is stored in the node's database."""


class OfficerKey(BaseModel):
    """The key that the officer signs with.

    `settings` is the key in node.yaml, from which the chain led to `key`. `announced` is the
    successor that `key` has signed and that the agreement does not name yet.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: PublicKey
    key: PublicKey
    announced: PublicKey | None = None

    @classmethod
    def load(cls, connection: Connection, settings: VerifyKey) -> Self:
        """Return the stored key for the key in the settings, or that key if nothing is stored."""
        text, first = get_value(connection, OFFICER), settings.to_text()
        stored = cls.model_validate_json(text) if text else None
        if stored is not None and stored.settings == first:
            return stored
        return cls(settings=first, key=first)

    def save(self, connection: Connection) -> None:
        """Store the key in the caller's transaction."""
        set_value(connection, OFFICER, self.model_dump_json())

    @property
    def current(self) -> VerifyKey:
        """The key that counts now."""
        return VerifyKey.from_text(self.key)

    def with_announced(self, new: str, history: KeyHistory | None) -> Self:
        """Return a copy with an announced successor.

        Raises DocumentFault if another successor was announced before and does not lead to this
        one: if the former key has signed two successors, one of them may belong to a thief.
        """
        before = self.announced
        proven = history is not None and before and history.proves_succession(before, new)
        if before not in {None, new} and not proven:
            raise DocumentFault(
                "The officer's key has announced a second successor",
                why=f"the first was {VerifyKey.from_text(str(before)).fingerprint}, "
                f"the second is {VerifyKey.from_text(new).fingerprint}",
                fix="call your officer, and pin the right key with `pratique-node officer-key`",
            )
        return self.model_copy(update={"announced": new})

    def with_announced_in_force(self) -> Self:
        """Return a copy in which the announced successor is the key that counts."""
        return self.model_copy(update={"key": self.announced or self.key, "announced": None})
