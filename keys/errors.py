"""The root of every error this project raises on purpose.

    PratiqueError
    ├── KeyFault            a key, passphrase, certificate or signature is missing or wrong (keys)
    ├── ProtocolFault       a message is malformed, out of order or not authentic (protocols)
    ├── DocumentFault       a governance document cannot be read, trusted or used (governance)
    ├── LedgerFault         the privacy ledger cannot take or find an entry (governance)
    ├── LogFault            the audit log cannot be appended to, or does not verify (governance)
    ├── RecordFault         the records or their dictionary cannot be used (client)
    └── OperationFault      a command or service cannot do what was asked (client, server)

Each says what happened, why, and what to do, in plain words for the person at the keyboard.
"""


class PratiqueError(Exception):
    """Something went wrong that a person can act on.

    `what` happened; `why`; and what to do, `fix`. Command lines print the three, nothing else.
    """

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        super().__init__(what)

    def __str__(self) -> str:
        parts = [self.what, self.why, f"To do: {self.fix}" if self.fix else ""]
        between = "\n" if "\n" in self.why else " "  # a list of problems stands line by line
        return between.join(_sentence(part) for part in parts if part)


def _sentence(text: str) -> str:
    ended = text if text.endswith((".", "?", "!")) else f"{text}."
    first = ended.split(maxsplit=1)[0].rstrip(".,:;!?")
    name = not first[:1].isascii() or any(sign in first for sign in "./_")  # Δ is not δ
    return ended if name else ended[:1].upper() + ended[1:]


class KeyFault(PratiqueError):
    """A key, passphrase, certificate or signature is missing or wrong."""
