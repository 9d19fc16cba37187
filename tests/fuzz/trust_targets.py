"""Targets: published metadata and files, and what officers submit.

Keys that the attacker may hold sign what is fuzzed: the coordinator's for timestamp, snapshot and
its own role, a country's officer's for that country's role.
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import cache, partial

from google.protobuf.message import DecodeError

from client.commands.doctor_machine import check_clock
from governance.officer.home import Settings as OfficerSettings
from governance.officer.trust_store import TrustStore
from governance.trust.bundle import (
    CountryBundle,
    own_country,
    read_metadata,
    read_targets_metadata,
    signer_of,
)
from governance.trust.ceremony import Draft, read_root, sign_draft
from governance.trust.client import PUBLISHED_NAME
from governance.trust.layout import history_path, node_path, permit_path, policy_path, signer
from governance.trust.published_files import read_published
from governance.trust.state import TIMESTAMP_NAME, metadata_name
from keys.certificates import Peer, Role
from keys.identity import SigningKey
from protocols.proto.exchange_pb2 import SubmitRequest
from server.exchange.documents import ExchangeDocuments
from tests.fuzz.document_targets import HISTORY, POLICIES
from tests.fuzz.target import Parse, Seeds, Target, scratch, text
from tests.support.document_samples import AGREED, ASKED, BUNDLE, DRAFT, KEY, METADATA
from tests.support.documents import (
    DAY,
    NOW,
    FederationDocuments,
    LyingCoordinator,
    country_metadata,
    node_keys,
    permit,
    raw_key,
)

BUNDLES, VERIFICATION = "governance/trust/bundle.py", "governance/trust/verification.py"
CLIENT = "governance/trust/client.py"
SIGNERS: Mapping[str, tuple[SigningKey, ...]] = {
    "timestamp": (raw_key(3),),
    "snapshot": (raw_key(3),),
    "coordinator": (raw_key(2),),
    "country-DK": (raw_key(100),),
    "targets": (raw_key(100), raw_key(101), raw_key(102)),
}
OTHER_VERSION = 2


def _bundle_of(path: str, content: bytes) -> object:
    """Read a country's bundle that has these bytes at the path, with a valid signature."""
    metadata, _ = country_metadata(KEY, {path: content})
    shown = content.decode(errors="replace")
    bundle = CountryBundle(country="DK", metadata=metadata.decode(), targets={path: shown})
    return own_country(bundle.canonical(), "DK", KEY.public, NOW)


def _at_path(path: str, *seeds: bytes) -> Target:
    return Target(partial(_bundle_of, path), seeds, (BUNDLES,))


def _bundle(data: bytes) -> None:
    """Read a bundle: no other key than a trusted one, or one that it signed, signs it."""
    assert signer_of(data, "DK", KEY.public) == KEY.public
    own_country(data, "DK", KEY.public, NOW)


@cache
def _documents() -> FederationDocuments:
    documents = FederationDocuments(scratch() / "documents")
    documents.publish_agreement()
    documents.folders["DK"].set_node(node_keys("DK"))
    documents.folders["DK"].approve(permit(AGREED, ASKED))
    documents.propose(ASKED)
    documents.sign_and_submit("DK")
    return documents


@cache
def _drafted() -> FederationDocuments:
    documents = FederationDocuments(scratch() / "drafted")
    documents.store.draft(AGREED, NOW)
    return documents


@cache
def _published() -> LyingCoordinator:
    return LyingCoordinator(_documents())


def _newest(role: str) -> str:
    """Return the name of a role's newest file."""
    files = _published().files
    return TIMESTAMP_NAME if role == "timestamp" else max(n for n in files if f".{role}." in n)


def _seeds_of(role: str) -> Callable[[], Seeds]:
    return lambda: (_published().files[_newest(role)],)


def _role(role: str) -> Parse:
    """Verify all that is published, with these bytes as a role's metadata, signed if they can be.

    A country whose role cannot be read is absent, and no other country with it.
    """

    def read(data: bytes) -> None:
        lying = LyingCoordinator.__new__(LyingCoordinator)
        lying.documents, lying.online_key = _documents(), _documents().online_key
        lying.files = dict(_published().files)
        _put(lying, role, _signed(role, data))
        view = lying.view()
        assert set(view.countries) <= set(AGREED.countries)
        assert role == "country-DK" or "DK" in view.countries or "DK" in view.absent

    return read


def _signed(role: str, data: bytes) -> bytes:
    metadata = read_metadata(data)
    if metadata is None:
        return data
    metadata.signatures.clear()
    for key in SIGNERS[role]:
        metadata.sign(signer(key), append=True)
    return bytes(metadata.to_bytes())


def _put(lying: LyingCoordinator, role: str, data: bytes) -> None:
    if role == "timestamp":
        lying.files[TIMESTAMP_NAME] = data
    elif role == "snapshot":
        metadata = read_metadata(data)
        version = metadata.signed.version if metadata else OTHER_VERSION
        lying.files |= lying._state()._timestamp(NOW, lying.online_key, version, data)
        lying.files[metadata_name("snapshot", version)] = data
    else:
        lying.put(role, data)


def _root(data: bytes) -> None:
    """Offer these bytes as the next root, which nobody has signed."""
    read_root(data)
    lying = _published()
    files = {**lying.files, metadata_name("root", OTHER_VERSION): data}
    shown = LyingCoordinator.__new__(LyingCoordinator)
    shown.documents, shown.files = _documents(), files
    assert shown.view().versions.root == 1


@cache
def _officer() -> TrustStore:
    settings = OfficerSettings(
        country="DK", authority="Authority", document_key=KEY.public.to_text(), root_digest=PINNED
    )
    return TrustStore(scratch() / "officer", settings)


PINNED = "sha256:" + "a" * 64


def _first_root(data: bytes) -> None:
    """Show an officer a first root that is not the one of the invitation: it is not used."""
    _officer().root(lambda _: data)
    raise AssertionError("another root is trusted")


def _path(name: str) -> None:
    """Fetch a path: a file is read only if it may be published."""
    folder = scratch() / "published" / "inner"
    if not folder.exists():
        (folder / "metadata").mkdir(parents=True)
        (folder / TIMESTAMP_NAME).write_bytes(b"published")
        for secret in (folder / "secret", folder.parent / "secret"):
            secret.write_bytes(b"secret")
    content = read_published(folder, name)
    assert content in (None, b"published")
    assert content is None or PUBLISHED_NAME.fullmatch(name)


def _submitted(data: bytes) -> None:
    """Submit these bytes as the officer of DK: no other country's documents change."""
    try:
        request = SubmitRequest.FromString(data)
    except DecodeError:
        return
    signs = request.kind == SubmitRequest.DRAFT_SIGNATURES
    documents = _drafted() if signs else _documents()
    exchange = ExchangeDocuments(
        documents.store,
        document_key=documents.document_key,
        online_key=documents.online_key,
        clock=lambda: NOW,
        on_change=lambda _: None,
    )
    before = _others(documents)
    peer = Peer("nordic-heart", "DK", Role.OFFICER, 1, NOW + DAY)
    try:
        exchange.submit(peer, request.kind, request.content)
    finally:
        assert _others(documents) == before


def _others(documents: FederationDocuments) -> Mapping[str, str]:
    """Return the hash of each published file of other parties, except snapshot and timestamp."""
    return {
        name: hashlib.sha256(content).hexdigest()
        for name, content in documents.snapshot_of_store().items()
        if "country-DK" not in name and "snapshot" not in name and name != TIMESTAMP_NAME
    }


def _submissions() -> Seeds:
    documents, draft = _documents(), _drafted().store.current_draft()
    assert draft is not None
    key = documents.officers["DK"]
    signatures = sign_draft(Draft.from_canonical(draft), key, previous_root=None, now=NOW)
    contents = {
        SubmitRequest.COUNTRY_BUNDLE: documents.folders["DK"].sign(NOW, key),
        SubmitRequest.DRAFT_SIGNATURES: signatures,
    }
    return tuple(
        SubmitRequest(kind=kind, content=content).SerializeToString()
        for kind, content in contents.items()
    )


def _clock(data: bytes) -> str:
    """Compare the clock with a timestamp that nobody has verified, as `doctor` does."""
    return check_clock(NOW, NOW, data, None)


ROLES = {
    f"signed metadata of {role}": Target(
        _role(role), _seeds_of(role), (VERIFICATION, BUNDLES, CLIENT)
    )
    for role in SIGNERS
}
TRUST_TARGETS: dict[str, Target] = {
    "country bundle": Target(_bundle, (BUNDLE.canonical(),), (BUNDLES,)),
    "role metadata": Target(read_targets_metadata, (METADATA,), (BUNDLES,)),
    "root metadata": Target(_root, (DRAFT.root().to_bytes(), METADATA), (VERIFICATION,)),
    "first root for an officer": Target(
        _first_root, (DRAFT.root().to_bytes(),), ("governance/officer/trust_store.py",)
    ),
    "national policy in a bundle": _at_path(policy_path("DK"), *POLICIES),
    "node keys in a bundle": _at_path(node_path("DK"), node_keys("DK").canonical()),
    "permit in a bundle": _at_path(
        permit_path("DK", ASKED.digest), permit(AGREED, ASKED).canonical()
    ),
    "key history in a bundle": _at_path(history_path("DK"), HISTORY.canonical()),
    **ROLES,
    "path that is fetched": Target(
        text(_path),
        (TIMESTAMP_NAME.encode(), b"metadata/1.root.json", b"metadata/../secret"),
        ("governance/trust/published_files.py",),
    ),
    "submission of an officer": Target(
        _submitted, _submissions, ("server/exchange/documents.py", "governance/trust/acceptance.py")
    ),
    "timestamp beside the clock": Target(
        _clock, _seeds_of("timestamp"), ("client/commands/doctor_machine.py",)
    ),
}
