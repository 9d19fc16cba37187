"""A country's documents in one file: signed metadata and every target that they list.

The exchange and the country's node read it with the same code. The exchange checks the signature
by the delegation; the node checks it by the key pinned at `init` and trusts no other key.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field
from securesystemslib.exceptions import UnverifiedSignatureError
from tuf.api.exceptions import LengthOrHashMismatchError, RepositoryError
from tuf.api.metadata import Metadata, TargetFile, Targets

from governance.cedar.engine import FORBID_ALL, check_national
from governance.documents.models import Country, Document
from governance.documents.permit import NodeKeys, Permit, Withdrawal
from governance.documents.rotation import KeyHistory
from governance.errors import DocumentFault
from governance.runtime.safe_text import named
from governance.runtime.wording import counted
from governance.trust.layout import (
    CLOCK_SKEW,
    COUNTRY_LIFE,
    history_path,
    is_country_path,
    key_id,
    node_path,
    permit_path,
    policy_path,
    signed_at,
    tuf_key,
    withdrawal_path,
)
from governance.trust.limits import OF_COUNTRY
from keys.identity import VerifyKey
from protocols.wire.encoding import check_json

MOST_SHOWN = 100
"""The most characters of a path that a sentence quotes."""
Contents = Callable[[TargetFile], bytes]
Read = TypeVar("Read")


class CountryBundle(Document):
    """One country's role, as its officer delivers it to the exchange and to the country's node."""

    name_in_messages: ClassVar[str] = "bundle of a country's documents"
    most_bytes: ClassVar[int] = 4 * 1024 * 1024

    kind: Literal["country-bundle"] = "country-bundle"
    schema_version: Literal[1] = Field(default=1, alias="schema")
    country: Country
    metadata: str
    targets: Annotated[dict[str, str], Field(max_length=OF_COUNTRY.documents)]

    def signed(self) -> Metadata[Targets]:
        """Return the metadata, not verified. Raises DocumentFault if they cannot be read."""
        return read_targets_metadata(self.metadata.encode())

    def content(self, target: TargetFile) -> bytes:
        """Return a target that the metadata list, checked against its hash."""
        text = self.targets.get(target.path)
        if text is None:
            raise _unfit(
                self.country, f"the target {target.path} is listed, but is not in the bundle"
            )
        return checked_content(self.country, target, text.encode())


@dataclass(frozen=True)
class CountryDocuments:
    """One country's verified documents: node keys, permits, withdrawals, its own policy.

    `key` is the document key that verified them, as text; `history` are the changes that led to
    this key, and possibly to the next one. `unreadable` says what is wrong with each document that
    cannot be read, and `excess` which limit the country exceeds. If there is either, the permits of
    this country do not count, because something that is not read might restrict them; its
    withdrawals do, as many as fit.
    """

    country: str
    version: int
    signed_at: datetime
    expires: datetime
    node: NodeKeys | None
    permits: Mapping[str, Permit]
    withdrawals: Mapping[str, Withdrawal]
    policy: str | None
    key: str = ""
    history: KeyHistory | None = None
    unreadable: tuple[str, ...] = ()
    excess: str = ""

    @property
    def fault(self) -> str:
        """Why this country's permits do not count, in one sentence; empty if they do."""
        if self.excess:
            return f"{self.country} {self.excess}, so its permits do not count"
        if not self.unreadable:
            return ""
        return (
            f"{counted(len(self.unreadable), 'document')} of {self.country} cannot be read, so its "
            f"permits do not count; {self.unreadable[0]}"
        )

    @property
    def next_key(self) -> str | None:
        """The next key, signed by the current one; None if none is announced."""
        newest = self.history.newest if self.history else self.key
        return None if newest == self.key else newest

    def permit(self, study: str) -> Permit | None:
        """Return the permit for the study with this digest."""
        return self.permits.get(study)

    def withdrawal(self, study: str) -> Withdrawal | None:
        """Return the withdrawal of the study with this digest."""
        return self.withdrawals.get(study)


def own_country(
    bundle: bytes, country: str, pinned: VerifyKey, now: datetime, *, at_least: int = 0
) -> CountryDocuments:
    """Return the documents of the country's officer, verified by the pinned key alone.

    `pinned` may be a key that `signer_of` returned; `at_least` is the last version seen. Raises
    DocumentFault for another key, an older version, expired metadata, another country's path, or
    contents that do not fit.
    """
    read = CountryBundle.from_canonical(bundle)
    if read.country != country:
        raise _unfit(country, f"the bundle belongs to {read.country}")
    metadata = read.signed()
    _check_signature(country, metadata, pinned)
    if metadata.signed.version < at_least:
        older = f"it is version {metadata.signed.version}, but {at_least} was seen before"
        raise _unfit(country, older)
    return read_country(country, pinned.to_text(), metadata.signed, read.content, now)


def signer_of(bundle: bytes, country: str, trusted: VerifyKey) -> VerifyKey:
    """Return the key that signed the bundle: the trusted key or a later one.

    A later key counts if the history in the bundle leads to it from the trusted key. Raises
    DocumentFault for any other key.
    """
    read = CountryBundle.from_canonical(bundle)
    if read.country != country:
        raise _unfit(country, f"the bundle belongs to {read.country}")
    return signer_of_read(read, trusted)


def signer_of_read(read: CountryBundle, trusted: VerifyKey) -> VerifyKey:
    """Return the same for a bundle that was read already."""
    country = read.country
    metadata, text = read.signed(), read.targets.get(history_path(country))
    history = KeyHistory.from_canonical(text.encode()) if text else None
    candidates = history.keys if history and history.country == country else ()
    for text_of_key in candidates:
        key = VerifyKey.from_text(text_of_key)
        proven = history is not None and history.proves_succession(trusted.to_text(), text_of_key)
        if proven and is_signed_by(metadata, key):
            return key
    _check_signature(country, metadata, trusted)
    return trusted


def is_signed_by(metadata: Metadata[Targets], key: VerifyKey) -> bool:
    """Whether the key's signature under the metadata is valid."""
    try:
        signature = metadata.signatures[key_id(key)]
        tuf_key(key, "").verify_signature(signature, metadata.signed_bytes)
    except (KeyError, UnverifiedSignatureError):
        return False
    return True


def _check_signature(country: str, metadata: Metadata[Targets], pinned: VerifyKey) -> None:
    if not is_signed_by(metadata, pinned):
        raise DocumentFault(
            f"The documents of {country} are not signed by the key that is pinned here",
            why=f"the pinned key is {pinned.fingerprint}",
            fix="compare the fingerprint with your officer; pin a changed key only after that "
            "(`pratique-node officer-key`)",
        )


def read_country(
    country: str, key: str, signed: Targets, contents: Contents, now: datetime
) -> CountryDocuments:
    """Return the documents in a country's role; the caller has verified its signature by `key`.

    A document that cannot be read is named in `unreadable`. If more is listed than a country may
    publish, no permit is fetched, and no more of the others than may be. Raises DocumentFault if
    the metadata are expired or valid for too long, or list something that a country's role may not
    contain.
    """
    check_life(country, signed, now)
    listed = _listed(country, signed)
    excess = OF_COUNTRY.excess(listed)
    chosen = OF_COUNTRY.fitting(_restrictions(country, listed)) if excess else listed
    texts = {target.path: contents(target) for target in chosen}
    reading = _Reading(country, texts)
    has_policy = policy_path(country) in texts
    policy = reading.take(policy_path(country), _read_policy) or (
        FORBID_ALL if has_policy else None
    )
    node = reading.take(node_path(country), _read_node)
    history = reading.take(history_path(country), partial(_read_history, key))
    decisions = [reading.take(path, partial(_read_decision, path)) for path in list(texts)]
    unreadable = tuple(reading.unreadable)
    unclear = excess or unreadable
    return CountryDocuments(
        country=country,
        version=signed.version,
        signed_at=signed_at(signed),
        expires=signed.expires,
        node=node,
        permits={d.study: d for d in decisions if isinstance(d, Permit) and not unclear},
        withdrawals={d.study: d for d in decisions if isinstance(d, Withdrawal)},
        policy=policy,
        key=key,
        history=history,
        unreadable=unreadable,
        excess=excess,
    )


@dataclass
class _Reading:
    """Reads the texts of one country; what cannot be read is noted and changes nothing else."""

    country: str
    texts: dict[str, bytes]
    unreadable: list[str] = field(default_factory=list)

    def take(self, path: str, read: Callable[[str, bytes], Read]) -> Read | None:
        """Return what `read` makes of the text at `path`; None if there is none, or no sense."""
        data = self.texts.pop(path, None)
        try:
            return None if data is None else read(self.country, data)
        except DocumentFault as fault:
            self.unreadable.append(f"{named(path)}: {fault.sentence}")
            return None


def check_life(country: str, signed: Targets, now: datetime) -> None:
    """Raise DocumentFault if metadata are expired, issued in the future, or valid for too long."""
    born = signed_at(signed)
    if signed.is_expired(now):
        raise _unfit(country, f"they expired on {signed.expires:%Y-%m-%d %H:%M} UTC")
    if born > now + CLOCK_SKEW:
        raise _unfit(country, f"they are signed in the future, on {born:%Y-%m-%d %H:%M} UTC")
    if signed.expires - born > COUNTRY_LIFE:
        raise _unfit(country, f"they would be valid for longer than {COUNTRY_LIFE.days} days")


def _listed(country: str, signed: Targets) -> list[TargetFile]:
    if signed.delegations is not None:
        raise _unfit(country, "a country's role delegates to nobody")
    foreign = _first(path for path in signed.targets if not is_country_path(country, path))
    if foreign is not None:
        raise _unfit(country, f"the path {named(cut(foreign))} is not a path of this country")
    return list(signed.targets.values())


def _restrictions(country: str, listed: Iterable[TargetFile]) -> list[TargetFile]:
    """Return everything except permits, with the withdrawals last."""
    fixed = (policy_path(country), history_path(country), node_path(country))
    others = (target for target in listed if not is_permit(target.path))
    return sorted(others, key=lambda target: (target.path not in fixed, target.path))


def is_permit(path: str) -> bool:
    """Whether this path of a country is a permit's; otherwise a decision is a withdrawal."""
    return "/permits/" in path


def is_decision(path: str) -> bool:
    """Whether this path of a country is a permit's or a withdrawal's."""
    return is_permit(path) or "/withdrawals/" in path


def study_of(path: str) -> str:
    """Return the digest of the study that a decision with this path is about."""
    return f"sha256:{path.rpartition('/')[2].removesuffix('.json')}"


def cut(path: str) -> str:
    """Return a path of another party, short enough for a sentence."""
    return path if len(path) <= MOST_SHOWN else f"{path[:MOST_SHOWN]}..."


def _first(paths: Iterable[str]) -> str | None:
    return next(iter(paths), None)


def _read_decision(path: str, country: str, data: bytes) -> Permit | Withdrawal:
    kind, path_of = (Permit, permit_path) if is_permit(path) else (Withdrawal, withdrawal_path)
    document = kind.from_canonical(data)
    if document.country != country or path_of(country, document.study) != path:
        raise _unfit(
            country,
            f"the target {path} contains a {kind.name_in_messages} that belongs to another path",
        )
    return document


def _read_node(country: str, data: bytes) -> NodeKeys:
    node = NodeKeys.from_canonical(data)
    if node.country != country:
        raise _unfit(country, f"the node keys are those of {node.country}")
    return node


def _read_history(key: str, country: str, data: bytes) -> KeyHistory:
    """Return the history of `key`: one that ends at this key, or at the key after it."""
    history = KeyHistory.from_canonical(data)
    if history.country != country or key not in history.keys[-2:]:
        raise _unfit(country, "the history of its keys does not lead to the key that signed them")
    return history


def _read_policy(country: str, data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise _unfit(country, "the national policy is not UTF-8 text") from None
    check_national(text)
    return text


def read_targets_metadata(data: bytes) -> Metadata[Targets]:
    """Return targets metadata, not verified. Raises DocumentFault if the bytes are not such."""
    metadata = read_metadata(data)
    if metadata is None or not isinstance(metadata.signed, Targets):
        raise DocumentFault(
            "These are not metadata of a country's role", fix="ask the officer to sign again"
        )
    return metadata


def read_metadata(data: bytes) -> Metadata[Any] | None:
    """Return TUF metadata that can be verified; None if the bytes are not such."""
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(check_json(data))
        _ = metadata.signed_bytes  # a fraction in any field has no canonical form
    except (RepositoryError, ValueError):
        return None
    return metadata


def checked_content(country: str, target: TargetFile, data: bytes) -> bytes:
    """Return the data if they match the metadata. Raises DocumentFault otherwise."""
    if set(target.hashes) != {"sha256"}:
        raise _unfit(country, f"the target {target.path} is not listed by its SHA-256")
    try:
        target.verify_length_and_hashes(data)
    except LengthOrHashMismatchError:
        raise _unfit(country, f"the target {target.path} is not what was signed") from None
    return data


def _unfit(country: str, why: str) -> DocumentFault:
    return DocumentFault(
        f"The documents of {country} cannot be used",
        why=why,
        fix=f"ask the privacy officer of {country} to sign and send them again",
    )
