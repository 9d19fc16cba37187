"""The base class of every error that this project raises on purpose, and the tree of them.

    PratiqueError
    ├── KeyFault                a key, certificate or signature is missing or wrong (keys)
    ├── LinkFault               the exchange cannot be reached, or refused the call (protocols)
    │   └── StatusFault         the exchange answers a call of Flower with an error status (client)
    ├── ProtocolFault           a message is malformed, out of order or not authentic (protocols)
    │   ├── Refusal             a node refuses a request; the coordinator gets only a code
    │   └── Unpublished         a message names documents that are not published yet
    ├── DocumentFault           a document cannot be read, trusted or used (governance)
    │   └── FileFault           a file of this machine cannot be written
    ├── LedgerFault             the privacy ledger cannot add or find an entry (governance)
    ├── LogFault                the audit log cannot be appended to, or does not verify (governance)
    ├── ResultFault             a released result cannot be read or trusted (governance)
    ├── StorageFault            a database cannot be opened, read or written (governance)
    ├── HomeFault               a program's folder cannot be used or made (governance)
    ├── LocalRpcFault           a local daemon does not run, or refuses (governance)
    ├── ObserveFault            metrics and health cannot be served at this address (governance)
    ├── OfficerFault            a command of the officer cannot do what was asked (governance)
    │   └── HandoverFault       a document was signed and stored, but not delivered to everyone
    ├── RecordFault             the records or their dictionary cannot be used (client)
    │   └── ContentFault        a file of records is not what its dictionary says
    ├── NodeFault               a command or service of the node cannot do what was asked (client)
    └── CoordinatorFault        a command or service of the coordinator cannot do it (server)
        ├── SetUpFailed         a run could not begin
        ├── RunVoid             a run opened too few sums to release a result
        ├── Superseded          an attempt may not continue its run
        ├── RelayRefused        a Fleet call that the caller's certificate does not allow
        └── BundleRefused       a Flower bundle has more than configuration

Each says what happened, why, and what to do, in plain words for the person who reads it.
"""

TO_DO = "To do: "
"""The beginning of the sentence that says what to do."""


class PratiqueError(Exception):
    """An error that a person can act on.

    `what` happened, `why`, and how to `fix` it. Commands print these three and nothing else.
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
        """What happened, why, and what to do, each as one sentence."""
        why = _capitalised(self.why) if self.why else ""
        parts = [self.what, why, f"{TO_DO}{self.fix}" if self.fix else ""]
        return [_ended(part) for part in parts if part]

    def __str__(self) -> str:
        between = "\n" if "\n" in self.why else " "  # a list has one problem on each line
        return between.join(self.sentences)


def reason_of(error: OSError | ValueError) -> str:
    """Return why a file cannot be used: the system's reason without number, or the text's fault."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)


def _ended(text: str) -> str:
    return text if text.removesuffix('"').endswith((".", "?", "!")) else f"{text}."


def _capitalised(text: str) -> str:
    """Return a text with a capital; a field, an id or a file name at its beginning stays as it is.

    What happened is not changed: it begins with a capital in the code, and may begin with a name.
    """
    first = text.split(maxsplit=1)[0]
    is_field = first.endswith(":")
    is_name = not first[:1].isascii() or any(sign in first.rstrip(".,:;!?") for sign in "./_-")
    return text if is_field or is_name else text[:1].upper() + text[1:]  # δ, not Δ


class KeyFault(PratiqueError):
    """A key, passphrase, certificate or signature is missing or wrong."""
