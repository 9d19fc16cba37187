"""The document key of the own country, as this node knows it, and the one that is to follow.

It begins with the key pinned at `init`. The officer's former key leads to the next one; that one
counts once the agreement names it. Whoever pins another key in the settings begins anew.
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


class OfficerKey(BaseModel):
    """Which key the officer signs with.

    `settings` is the one in node.yaml, from which `key` was reached; `announced` is the one that
    `key` has signed and that the agreement does not name yet.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: PublicKey
    key: PublicKey
    announced: PublicKey | None = None

    @classmethod
    def load(cls, connection: Connection, settings: VerifyKey) -> Self:
        """Return what is kept for the key in the settings; that key itself where nothing is."""
        text, first = get_value(connection, OFFICER), settings.to_text()
        kept = cls.model_validate_json(text) if text else None
        if kept is not None and kept.settings == first:
            return kept
        return cls(settings=first, key=first)

    def keep(self, connection: Connection) -> None:
        """Keep it in the caller's transaction."""
        set_value(connection, OFFICER, self.model_dump_json())

    @property
    def present(self) -> VerifyKey:
        """The key that counts now."""
        return VerifyKey.from_text(self.key)

    def announcing(self, new: str, history: KeyHistory | None) -> Self:
        """Return it with the key that is to follow.

        Raises DocumentFault where another one was announced before and does not lead to it: of
        two that the former key has signed, one may be a thief's.
        """
        before = self.announced
        followed = history is not None and before is not None and history.leads(before, new)
        if before not in {None, new} and not followed:
            raise DocumentFault(
                "The officer's key announces a second successor",
                why=f"before this it was {VerifyKey.from_text(str(before)).fingerprint}, "
                f"now it is {VerifyKey.from_text(new).fingerprint}",
                fix="call your officer; `pratique-node officer-key` pins the right one",
            )
        return self.model_copy(update={"announced": new})

    def moved(self) -> Self:
        """Return it with the announced key as the one that counts."""
        return self.model_copy(update={"key": self.announced or self.key, "announced": None})
