"""The signing ceremony: a draft, the metadata computed from it, and the signatures over them.

A draft holds the agreement, a version and a date. Everyone who signs, counts or publishes computes
the root and targets metadata from these, so a draft cannot add a key, a threshold or a path.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Signature
from tuf.api.metadata import Key, Metadata, Root, Targets

from governance.documents.agreement import Agreement
from governance.documents.models import Document, UtcTime
from governance.errors import DocumentFault
from governance.trust.bundle import read_metadata
from governance.trust.layout import (
    CLOCK_SKEW,
    PARTY_FIELD,
    build_root,
    build_targets,
    key_id,
    signer,
)
from keys.identity import SigningKey
from protocols.wire.encoding import Digest

KeyId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
SignatureHex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
SignatureTable = Annotated[dict[KeyId, SignatureHex], Field(max_length=200)]


class Draft(Document):
    """The agreement, a version and a date, from which root and targets follow."""

    name_in_messages: ClassVar[str] = "draft"

    kind: Literal["draft"] = "draft"
    schema_version: Literal[1] = Field(default=1, alias="schema")
    version: Annotated[int, Field(ge=1, le=1_000_000)]
    drafted: UtcTime
    agreement: Agreement

    def root(self) -> Metadata[Root]:
        """Return the root metadata, unsigned."""
        return Metadata(build_root(self.agreement, self.version, self.drafted))

    def targets(self) -> Metadata[Targets]:
        """Return the targets metadata, unsigned."""
        return Metadata(build_targets(self.agreement, self.version, self.drafted))


class SignatureSet(Document):
    """Signatures over the root and the targets of one draft, by key id."""

    name_in_messages: ClassVar[str] = "set of signatures"

    kind: Literal["signatures"] = "signatures"
    schema_version: Literal[1] = Field(default=1, alias="schema")
    draft: Digest
    root: SignatureTable
    targets: SignatureTable

    def merged_with(self, other: "SignatureSet") -> "SignatureSet":
        """Return both sets of signatures over the same draft."""
        if other.draft != self.draft:
            raise DocumentFault(
                "These signatures are over another draft",
                why="the draft has been replaced since they were made",
                fix="ask the officer to sign the draft as it is now",
            )
        return self.model_copy(
            update={"root": self.root | other.root, "targets": self.targets | other.targets}
        )


@dataclass(frozen=True)
class DraftStatus:
    """Who has signed a draft, who has not, and how many signatures are still needed.

    Names are country codes; `former DK` is a key that DK had before the amendment.
    """

    digest: str
    signed: tuple[str, ...]
    unsigned: tuple[str, ...]
    needed: int

    @property
    def ready(self) -> bool:
        """Whether the draft can be published."""
        return self.needed == 0


def sign_draft(
    draft: Draft, *keys: SigningKey, previous_root: bytes | None, now: datetime
) -> bytes:
    """Return signatures over root and targets, as one file.

    `previous_root` is the root that the officer trusts now; None before the first. If an officer's
    key changes, the new key and the old key both sign. Raises DocumentFault if a key belongs to no
    party, or the draft does not follow the previous root, is expired or was issued in the future.
    """
    previous = None if previous_root is None else read_root(previous_root)
    _check_follows(draft, previous, now)
    root, targets = draft.root(), draft.targets()
    for key in keys:
        known = _known_keys(root.signed, previous)
        if key_id(key.public) not in known:
            raise DocumentFault(
                f"The key {key.public.fingerprint} is not a country's key in this agreement",
                why="only officers of the parties sign it",
                fix="check the officer_key that the agreement gives for your country",
            )
        root.sign(signer(key), append=True)
        targets.sign(signer(key), append=True)
    return SignatureSet(draft=draft.digest, root=_table(root), targets=_table(targets)).canonical()


def _check_follows(draft: Draft, previous: Root | None, now: datetime) -> None:
    following = previous.version + 1 if previous else 1
    if draft.version != following:
        raise _unsignable(f"it is version {draft.version}; the next one is {following}")
    if draft.agreement.sunset <= now:
        raise _unsignable("its agreement has ended already")
    if draft.drafted > now + CLOCK_SKEW:
        raise _unsignable("it is dated in the future")


def _unsignable(why: str) -> DocumentFault:
    return DocumentFault(
        "This draft cannot be signed", why=why, fix="ask the coordinator for a new draft"
    )


def status(draft: Draft, signatures: SignatureSet, previous: Root | None) -> DraftStatus:
    """Return who has signed a draft. Raises DocumentFault for a signature that does not verify."""
    root, targets = signed_metadata(draft, signatures)
    _check_each(root, _known_keys(root.signed, previous))
    _check_each(targets, _known_keys(root.signed, previous))
    both = root.signed.get_root_verification_result(previous, root.signed_bytes, root.signatures)
    on_targets = root.signed.get_verification_result(
        Targets.type, targets.signed_bytes, targets.signatures
    )
    results = (both.first, both.second, on_targets)
    names = _names(root.signed, previous)
    missing = {id_ for result in results for id_ in result.unsigned}
    signed = {id_ for result in results for id_ in result.signed} - missing
    return DraftStatus(
        digest=draft.digest,
        signed=tuple(sorted(names[id_] for id_ in signed)),
        unsigned=tuple(sorted(names[id_] for id_ in missing)),
        needed=max(max(0, result.missing) for result in results),
    )


def signed_metadata(
    draft: Draft, signatures: SignatureSet
) -> tuple[Metadata[Root], Metadata[Targets]]:
    """Return root and targets of the draft with the signatures in place."""
    root, targets = draft.root(), draft.targets()
    root.signatures.update(_signatures(signatures.root))
    targets.signatures.update(_signatures(signatures.targets))
    return root, targets


def read_root(data: bytes) -> Root:
    """Return root metadata, not verified. Raises DocumentFault if the bytes are not such."""
    metadata = read_metadata(data)
    root = metadata.signed if metadata else None
    if not isinstance(root, Root):
        raise DocumentFault(
            "This is not a TUF root", fix="use the root file that came with the invitation"
        )
    return root


def _known_keys(root: Root, previous: Root | None) -> dict[str, Key]:
    roots = [previous, root] if previous else [root]
    return {id_: each.keys[id_] for each in roots for id_ in each.roles[Root.type].keyids}


def _names(root: Root, previous: Root | None) -> dict[str, str]:
    current = root.roles[Root.type].keyids
    return {
        id_: ("" if id_ in current else "former ") + party_name(key)
        for id_, key in _known_keys(root, previous).items()
    }


def party_name(key: Key) -> str:
    """Return the country that a key of the root belongs to."""
    return str(key.unrecognized_fields.get(PARTY_FIELD, "?")).removeprefix("country-")


def _check_each(metadata: Metadata[Root] | Metadata[Targets], keys: Mapping[str, Key]) -> None:
    for id_, signature in metadata.signatures.items():
        try:
            keys[id_].verify_signature(signature, metadata.signed_bytes)
        except (KeyError, UnverifiedSignatureError):
            raise DocumentFault(
                "A signature over the draft does not verify",
                why=f"it names the key {id_[:16]}…",
                fix="ask the officer to sign the draft as it is now",
            ) from None


def _signatures(table: Mapping[str, str]) -> dict[str, Signature]:
    return {id_: Signature(id_, text) for id_, text in table.items()}


def _table(metadata: Metadata[Root] | Metadata[Targets]) -> dict[str, str]:
    return {id_: signature.signature for id_, signature in metadata.signatures.items()}
