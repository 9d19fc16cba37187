"""The root of every error this project raises on purpose.

    PratiqueError
    ├── KeyFault                a key, certificate or signature is missing or wrong (keys)
    ├── LinkFault               the exchange cannot be reached, or refused the call (protocols)
    ├── ProtocolFault           a message is malformed, out of order or not authentic (protocols)
    │   ├── Refusal             a request may not be answered; the code alone goes back
    │   └── Unpublished         a message names documents that are not published yet
    ├── DocumentFault           a document cannot be read, trusted or used (governance)
    ├── LedgerFault             the privacy ledger cannot take or find an entry (governance)
    ├── LogFault                the audit log cannot be appended to, or does not verify (governance)
    ├── StorageFault            a database cannot be opened, read or written (governance)
    ├── LocalRpcFault           a local daemon is not there, or refuses (governance)
    ├── ObserveFault            metrics and health cannot be shown where asked (governance)
    ├── OfficerFault            a command of the officer cannot do what was asked (governance)
    │   └── HandoverFault       something was signed and kept, and has not reached everyone
    ├── RecordFault             the records or their dictionary cannot be used (client)
    ├── NodeFault               a command or service of the node cannot do what was asked (client)
    └── CoordinatorFault        the same of the coordinator (server)
        ├── SetUpFailed         a run could not begin
        ├── RunVoid             a run opened too little to release anything
        ├── Superseded          an attempt may not carry its run
        ├── RelayRefused        a Fleet call that the caller's certificate does not allow
        └── BundleRefused       a bundle is more than configuration

Each says what happened, why, and what to do, in plain words for the person at the keyboard.
"""


class PratiqueError(Exception):
    """Something went wrong that a person can act on.

    `what` happened; `why`; and what to do, `fix`. Command lines print the three, nothing else.
    """

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        super().__init__(what)

    @property
    def sentence(self) -> str:
        """What happened and why, in one sentence."""
        return f"{self.what}; {self.why}" if self.why else self.what

    @property
    def sentences(self) -> list[str]:
        """What happened, why, and what to do: each a sentence of its own."""
        parts = [self.what, self.why, f"To do: {self.fix}" if self.fix else ""]
        return [_whole(part) for part in parts if part]

    def __str__(self) -> str:
        between = "\n" if "\n" in self.why else " "  # a list of problems stands line by line
        return between.join(self.sentences)


def _whole(text: str) -> str:
    """Return a text as a sentence; an id or a file's name at its beginning stays as it is."""
    ended = text if text.endswith((".", "?", "!")) else f"{text}."
    first = ended.split(maxsplit=1)[0].rstrip(".,:;!?")
    name = not first[:1].isascii() or any(sign in first for sign in "./_-")  # Δ is not δ
    return ended if name else ended[:1].upper() + ended[1:]


class KeyFault(PratiqueError):
    """A key, passphrase, certificate or signature is missing or wrong."""
